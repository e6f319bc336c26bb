use super::*;
use proptest::prelude::*;
use serde_json::json;

fn parts(jinja: &str, choices: Option<&str>, row: serde_json::Value) -> Result<Vec<String>> {
    Template::new("t", jinja, choices, None)?.parts(row.as_object().unwrap(), &Draws::new(0, 0, "t"))
}

fn pair(jinja: &str, row: serde_json::Value) -> Made {
    let template = Template::new("t", jinja, None, None).unwrap();
    template.pair(row.as_object().unwrap(), &Draws::new(0, 0, "t")).unwrap()
}

#[test]
fn the_separator_splits_where_the_template_has_it() {
    let row = json!({"x": "a|||b", "list": ["c|||d", {"k": "||||"}]});
    let jinja = "{{ x }} {{ x.split('|||') | length }} {{ list[0] | upper }}{{ list[1].k }}|||{{ answer_choices[1] }}";
    let made = parts(jinja, Some("{{ x }} ||| {{ list | first }}"), row).unwrap();
    assert_eq!(made, ["a|||b 1 C|||D||||", "c|||d"]);
}

#[test]
fn what_makes_no_pair_has_a_reason() {
    let dropped = |jinja: &str| match pair(jinja, json!({"x": " "})) {
        Made::Dropped(reason) => reason,
        Made::Pair(pair) => panic!("{pair:?}"),
    };
    assert_eq!(dropped("a"), "the template has no target for the row");
    assert_eq!(dropped("{% if x == 'y' %}a ||| b{% endif %}"), "the template has no target for the row");
    assert_eq!(dropped("a ||| {{ x }}"), "the target is empty");
    assert_eq!(dropped("{{ x }} ||| b"), "the prompt is empty");
    assert_eq!(dropped("a ||| b ||| c"), "the template has more than one |||");
    assert_eq!(pair("a ||| b", json!({})), Made::Pair(Pair { prompt: "a".into(), target: "b".into() }));
}

#[test]
fn the_restricted_column_is_refused() {
    assert!(parts("a ||| b", None, json!({"answer_choices": []})).unwrap_err().what.contains("answer_choices"));
}

#[test]
fn truncation_is_asked_for() {
    let long = "word ".repeat(1000);
    let row = json!({"x": long});
    assert_eq!(parts("{{ x }}|||y", None, row.clone()).unwrap()[0].len(), 4999);
    let cut = Template::new("t", "{{ x }}|||y", None, Some(2048)).unwrap();
    let made = cut.parts(row.as_object().unwrap(), &Draws::new(0, 0, "t")).unwrap();
    assert_eq!(made[0].len(), 2047);
    assert!(made[0].ends_with("word..."));
}

#[test]
fn draws_are_the_rows_own() {
    let template = Template::new("t", "{{ range(1000) | choice }} {{ range(1000) | choice }}|||y", None, None).unwrap();
    let draw = |seed, row| template.parts(&Map::new(), &Draws::new(seed, row, "t")).unwrap()[0].clone();
    // Other processes must come to the same: this is what the first one came to.
    assert_eq!(draw(1, 2), DRAWN);
    assert_ne!(draw(1, 3), draw(1, 2));
    assert_ne!(draw(2, 2), draw(1, 2));
    let (first, second) = DRAWN.split_once(' ').unwrap();
    assert_ne!(first, second);
}

const DRAWN: &str = "730 181";

#[test]
fn hostile_templates_are_refused_before_they_are_parsed() {
    for source in [
        "{{ ".to_owned() + &"not ".repeat(20_000) + "1 }}",
        "{{ ".to_owned() + &"(".repeat(200) + "1" + &")".repeat(200) + " }}",
        "{% if a %}".repeat(200) + &"{% endif %}".repeat(200),
        "{{ 9 ** 9 }}".to_owned(),
        "x".repeat(70_000),
    ] {
        assert_eq!(Template::new("t", &source, None, None).unwrap_err().what, "the template is refused");
        assert_eq!(Template::new("t", "a", Some(&source), None).unwrap_err().what, "the template is refused");
    }
    assert_eq!(Template::new("t", "{{ a", None, None).unwrap_err().what, "the template cannot be compiled");
}

#[test]
fn what_a_template_may_do_has_a_budget() {
    let what = |source: &str| parts(source, None, json!({})).unwrap_err().what;
    let loops = "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}";
    assert_eq!(what(loops), "the template takes too many steps");
    let doubling = "{% set a = [] %}{% for i in range(64) %}{{ a.append(a) or '' }}{% endfor %}";
    assert_eq!(what(doubling), "the template takes too many steps");
    let deep = "{% set ns = namespace(x=[]) %}{% for i in range(90000) %}{% set ns.x = [ns.x] %}{% endfor %}";
    assert_eq!(what(&format!("{deep}{{{{ ns.x.append(1) }}}}")), "the template fails on this row");
    let wide = "{% for i in range(9000) %}{{ '".to_owned() + &"x".repeat(8000) + "' }}{% endfor %}";
    assert!(what(&wide).starts_with("the template "));
}

#[test]
fn nothing_contains_itself() {
    let jinja = "{% set a = [] %}{% set b = [a] %}{% set d = {'b': b} %}{{ a.append(b) }}{{ a.append((a, d)) }}\
                 {{ d.update({'d': d}) }} {{ a }} {{ d }}{{ a == b }}|||y";
    let made = parts(jinja, None, json!({})).unwrap();
    assert!(made[0].starts_with("NoneNoneNone [[[]], ("), "{}", made[0]);
}

proptest! {
    #[test]
    fn values_survive_whatever_they_hold(
        text in "[ |a\u{10F8F5}\u{10F900}\u{10F901}{}%\n]{0,12}",
        nested in "[|b\u{10F8F5}]{0,9}",
    ) {
        let row = json!({"x": text, "list": [nested]});
        let made = parts("<{{ x }}>|||<{{ list[0] }}>", None, row).unwrap();
        prop_assert_eq!(made, [format!("<{text}>"), format!("<{nested}>")]);
    }
}
