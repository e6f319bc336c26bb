// A reading line over each chart: the values at the update nearest to the pointer, or to the arrow keys.
"use strict";
for (const figure of document.querySelectorAll("figure.chart")) {
  const block = figure.querySelector("script[type='application/json']");
  const plot = figure.querySelector(".plot");
  if (!block || !plot) continue;
  const data = JSON.parse(block.textContent);
  const svg = plot.querySelector("svg");
  const line = svg.querySelector(".cross");
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  plot.append(tip);
  const every = [...new Set(data.curves.flatMap((curve) => curve.steps))].sort((a, b) => a - b);
  let at = -1;

  const nearest = (steps, wanted) => {
    let low = 0, high = steps.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (steps[middle] < wanted) low = middle; else high = middle;
    }
    return high >= 0 && steps[high] - wanted < wanted - steps[low] ? high : low;
  };
  const said = (value) => {
    const size = Math.abs(value);
    if (size >= 1e15 || (size < 1e-3 && size > 0)) return String(Number(value.toPrecision(4)));
    if (size >= 1000) return Math.round(value).toLocaleString("en-US");
    return size === 0 ? "0" : value.toPrecision(4);
  };
  const show = (index) => {
    if (!every.length) return;
    at = Math.max(0, Math.min(every.length - 1, index));
    const step = every[at];
    const share = step / data.max;
    line.setAttribute("x1", `${100 * share}%`);
    line.setAttribute("x2", `${100 * share}%`);
    line.style.visibility = "visible";
    const title = document.createElement("b");
    title.textContent = `update ${step.toLocaleString("en-US")}`;
    const rows = [title];
    for (const curve of data.curves) {
      const index = nearest(curve.steps, step);
      if (index < 0 || !curve.steps.length) continue;
      const row = document.createElement("div");
      const dot = document.createElement("i");
      dot.className = curve.colour;
      const far = curve.steps[index] === step ? "" : ` (update ${curve.steps[index].toLocaleString("en-US")})`;
      row.append(dot, `${curve.name} ${said(curve.values[index])}${far}`);
      rows.push(row);
    }
    tip.replaceChildren(...rows);
    tip.hidden = false;
    const box = svg.getBoundingClientRect(), outer = plot.getBoundingClientRect();
    const left = box.left - outer.left + share * box.width;
    const right = left + 14 + tip.offsetWidth > outer.width;
    tip.style.left = `${Math.max(0, right ? left - 14 - tip.offsetWidth : left + 14)}px`;
  };
  const hide = () => {
    tip.hidden = true;
    line.style.visibility = "hidden";
  };
  plot.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    show(nearest(every, ((event.clientX - box.left) / box.width) * data.max));
  });
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Escape") hide();
    if (move === undefined) return;
    event.preventDefault();
    show(Math.abs(move) === Infinity ? (move < 0 ? 0 : every.length - 1) : at + move);
  });
}
