//! Template source as transformers reads it, rewritten to what the engine here reads the same way.

/// The rewritten source, and whether it holds `{% generation %}`.
///
/// - `{% generation %}` becomes a scope with a mark at each end, which keeps white-space control.
/// - `{% for x in y %}` asks `__each(y)`, which raises on None as Python does.
/// - `{% set x.y = z %}` keeps `__kept(z)`, which does not nest without end.
pub(super) fn rewrite(source: &str) -> (String, bool) {
    let mut output = String::with_capacity(source.len() + 256);
    let mut found = false;
    let mut rest = source;
    while let Some(start) = ["{%", "{{", "{#"].iter().filter_map(|open| rest.find(open)).min() {
        let (before, tag) = rest.split_at(start);
        output.push_str(before);
        let length = if tag.starts_with("{#") {
            tag.find("#}").map_or(tag.len(), |end| end + 2)
        } else {
            let close = if tag.starts_with("{%") { b"%}" } else { b"}}" };
            (2 + super::limits::block_end(&tag[2..], close) + 2).min(tag.len())
        };
        let (tag, after) = tag.split_at(length);
        rest = after;
        let statement = tag.strip_prefix("{%").and_then(|tag| tag.strip_suffix("%}"));
        let Some(statement) = statement else {
            output.push_str(tag);
            continue;
        };
        if statement.trim_matches(['-', '+']).trim() == "raw"
            && let Some(length) = raw_length(rest)
        {
            output.push_str(tag);
            output.push_str(&rest[..length]);
            rest = &rest[length..];
            continue;
        }
        let open = if statement.starts_with(['-', '+']) { &statement[..1] } else { "" };
        let close = if statement.len() > open.len() && statement.ends_with(['-', '+']) {
            &statement[statement.len() - 1..]
        } else {
            ""
        };
        let inner = statement[open.len()..statement.len() - close.len()].trim();
        match inner {
            "generation" => {
                found = true;
                output.push_str(&format!("{{%{open} with %}}{{{{ __opened }}}}{{% if true {close}%}}"));
            }
            "endgeneration" => {
                output.push_str(&format!("{{%{open} endif %}}{{{{ __closed }}}}{{% endwith {close}%}}"));
            }
            _ => match inner.split_once(char::is_whitespace) {
                Some(("for", loops)) => output.push_str(&format!("{{%{open} for {} {close}%}}", each(loops))),
                Some(("set", assignment)) => match kept(assignment) {
                    Some(kept) => output.push_str(&format!("{{%{open} set {kept} {close}%}}")),
                    None => output.push_str(tag),
                },
                _ => output.push_str(tag),
            },
        }
    }
    output.push_str(rest);
    (output, found)
}

/// The length of a raw block's body.
fn raw_length(rest: &str) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = rest[from..].find("{%") {
        let at = from + at;
        let word = rest[at + 2..].trim_start_matches(['-', '+']).trim_start();
        if word.starts_with("endraw") {
            return Some(at);
        }
        from = at + 2;
    }
    None
}

/// ` x in y if z recursive` with `y` as `__each((y))`.
fn each(loops: &str) -> String {
    let words = top_words(loops);
    let Some(list) = words.iter().find(|(_, word)| *word == "in").map(|(at, _)| at + 2) else {
        return loops.to_owned();
    };
    let ends = words.iter().find(|(at, word)| *at >= list && matches!(*word, "if" | "recursive"));
    let end = ends.map_or(loops.len(), |(at, _)| *at);
    if loops[list..end].trim().is_empty() {
        return loops.to_owned();
    }
    format!("{} __each(({})) {}", &loops[..list], loops[list..end].trim(), &loops[end..])
}

/// `x.y = z` as `x.y = __kept((z))`; None for other assignments.
fn kept(assignment: &str) -> Option<String> {
    // Names, commas and brackets come before it: no string may hold it.
    let (target, value) = assignment.split_once('=')?;
    (target.contains('.') && !value.trim().is_empty() && !target.contains(['"', '\'', '|']))
        .then(|| format!("{target}= __kept(({}))", value.trim()))
}

/// Words outside of strings and brackets, and where they stand.
fn top_words(text: &str) -> Vec<(usize, &str)> {
    let bytes = text.as_bytes();
    let mut words = Vec::new();
    let (mut depth, mut quote, mut at) = (0usize, None, 0);
    while at < bytes.len() {
        let byte = bytes[at];
        match (quote, byte) {
            (Some(_), b'\\') => at += 1,
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'(' | b'[' | b'{') => depth += 1,
            (None, b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            (None, byte) if byte.is_ascii_alphanumeric() || byte == b'_' => {
                let length = bytes[at..].iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
                if depth == 0 {
                    words.push((at, &text[at..at + length]));
                }
                at += length;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    words
}
