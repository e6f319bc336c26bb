use super::*;
use proptest::prelude::*;

fn set(json: Value) -> TemplateSet {
    TemplateSet::parse(&json.to_string(), None).unwrap()
}

fn flan() -> TemplateSet {
    set(json!({"kind": "flan", "task": "sums", "patterns": [
        ["What is {question}?\n{options_}", "{answer}"],
        ["{question} =", "{answer}"],
        ["Which sum gives {answer}?", "{question}"]
    ]}))
}

fn p3() -> TemplateSet {
    let template = |id: &str, jinja: &str, shown: bool| json!({"id": id, "name": id, "jinja": jinja, "answer_choices": "a ||| b", "choices_in_prompt": shown});
    set(json!({"kind": "p3", "task": "p3", "templates": [
        template("shown", "{{ question }} {{ answer_choices | join(', ') }} ||| {{ answer }}", true),
        template("drawn", "{{ ['Say', 'Tell'] | choice }} {{ question }} ||| {{ answer }}", false)
    ]}))
}

fn sums(count: usize) -> Source {
    let rows = (0..count).map(
        |n| json!({"question": format!("{n}+1"), "answer": (n + 1).to_string(), "options": ["1", (n + 1).to_string()]}),
    );
    Source::Memory("row".into(), rows.map(|row| row.to_string().into_bytes()).collect())
}

fn options(given: Value) -> Options {
    let mut all = json!({
        "styles": [1.0, 1.0, 1.0, 1.0], "letters": false, "templates_per_row": 1, "skip": false, "max_examples": null,
        "num_threads": 2,
        "few_shot": {"k": [1, 3], "max_tokens": 200, "same_template": true, "pool": 1000, "all_targets": false}
    });
    all.as_object_mut().unwrap().extend(given.as_object().unwrap().clone());
    serde_json::from_value(all).unwrap()
}

fn made(set: &TemplateSet, options: &Options, seed: u64, source: Source) -> Result<(Vec<Instance>, Report)> {
    let count = |text: &str| Ok(text.len());
    let mut all = Vec::new();
    let report = TaskSource::new(set, options, &count, seed)?.each(&[source], |instances| {
        all.extend(instances);
        Ok(true)
    })?;
    Ok((all, report))
}

fn lines(set: &TemplateSet, options: &Options, seed: u64) -> Vec<String> {
    let (all, _) = made(set, options, seed, sums(600)).unwrap();
    let count = |text: &str| Ok(text.len());
    let task = TaskSource::new(set, options, &count, seed).unwrap();
    all.iter().map(|instance| task.to_row(instance).to_string()).collect()
}

#[test]
fn the_seed_decides_and_the_threads_do_not() {
    for set in [flan(), p3()] {
        let one = lines(&set, &options(json!({"num_threads": 1})), 3);
        assert_eq!(one, lines(&set, &options(json!({"num_threads": 3})), 3));
        assert_ne!(one, lines(&set, &options(json!({})), 4));
    }
}

#[test]
fn styles_come_by_their_weights() {
    let (_, report) = made(&flan(), &options(json!({})), 0, sums(2000)).unwrap();
    assert_eq!(report.instances, 2000);
    assert!(report.styles.values().all(|&count| (430..570).contains(&count)), "{:?}", report.styles);
    let only = options(json!({"styles": [0.0, 0.0, 0.0, 2.0]}));
    let (all, report) = made(&flan(), &only, 0, sums(50)).unwrap();
    assert_eq!(report.styles.keys().copied().collect::<Vec<_>>(), ["fs_noopt"]);
    assert!(all.iter().all(|instance| !instance.pair.prompt.contains("OPTIONS") && instance.shots > 0));
}

#[test]
fn options_stand_in_styles_with_options_only() {
    for set in [flan(), p3()] {
        let (all, _) = made(&set, &options(json!({})), 0, sums(200)).unwrap();
        for instance in all {
            let shown = instance.pair.prompt.contains("OPTIONS:") || instance.pair.prompt.contains("a, b");
            assert_eq!(shown, instance.options, "{instance:?}");
            assert_eq!(instance.style.ends_with("_opt"), instance.options);
            assert_eq!(instance.style.starts_with("fs"), instance.shots > 0);
        }
    }
}

#[test]
fn each_row_can_be_put_into_all_templates() {
    let all = options(json!({"templates_per_row": 0, "styles": [1.0, 0.0, 1.0, 0.0], "few_shot": null}));
    let (instances, report) = made(&flan(), &all, 0, sums(10)).unwrap();
    assert_eq!(instances.len(), 30);
    assert!(report.templates.values().all(|&count| count == 10));
    let two = options(json!({"templates_per_row": 2, "styles": [0.0, 0.0, 1.0, 0.0], "few_shot": null}));
    let (instances, _) = made(&flan(), &two, 0, sums(10)).unwrap();
    assert_eq!(instances.len(), 20);
    assert!(instances.chunks(2).all(|two| two[0].row == two[1].row && two[0].template != two[1].template));
}

#[test]
fn drops_and_bad_rows_are_counted() {
    let set = set(json!({"kind": "flan", "task": "t", "patterns": [["{a}", "{b}"]]}));
    let rows = [r#"{"a":"1","b":"2"}"#, r#"{"a":"1","b":" "}"#, r#"{"a":"1"}"#, "{", r#"{"a":"3","b":"4"}"#];
    let source = || Source::Memory("row".into(), rows.iter().map(|row| row.as_bytes().to_vec()).collect());
    let plain = json!({"few_shot": null, "styles": [0.0, 0.0, 1.0, 0.0]});
    let error = made(&set, &options(plain.clone()), 0, source()).unwrap_err();
    assert_eq!((error.location.as_deref(), error.what.as_str()), (Some("row:3"), "no column \"b\""));
    let mut skip = options(plain);
    skip.skip = true;
    let (all, report) = made(&set, &skip, 0, source()).unwrap();
    assert_eq!((all.len(), report.rows, report.instances), (2, 5, 2));
    assert_eq!(report.dropped.values().sum::<u64>(), 3);
    assert_eq!(report.dropped["the target is empty"], 1);
    skip.max_examples = Some(1);
    assert_eq!(made(&set, &skip, 0, source()).unwrap().0.len(), 1);
}

#[test]
fn what_becomes_zero_shot_is_dropped() {
    let styles = json!([0.0, 0.0, 0.0, 1.0]);
    let tight = options(json!({"styles": styles,
        "few_shot": {"k": [1, 3], "max_tokens": 8, "same_template": true, "pool": 1000, "all_targets": false}}));
    let (all, report) = made(&flan(), &tight, 0, sums(20)).unwrap();
    assert!(all.is_empty());
    assert_eq!(report.dropped["no exemplar fits into the token budget"], 20);
    let (_, report) = made(&flan(), &options(json!({"styles": styles})), 0, sums(1)).unwrap();
    assert_eq!(report.dropped["there is no other row to show"], 1);
}

#[test]
fn answers_of_demonstrations_can_be_learned() {
    let mut every = options(json!({"styles": [0.0, 1.0, 0.0, 1.0]}));
    every.few_shot.as_mut().unwrap().all_targets = true;
    let set = flan();
    let (all, _) = made(&set, &every, 0, sums(20)).unwrap();
    let count = |text: &str| Ok(text.len());
    let task = TaskSource::new(&set, &every, &count, 0).unwrap();
    for instance in all {
        let Record::Conversation(conversation) = task.to_record(&instance, false) else { panic!() };
        assert_eq!(conversation.messages.len(), 2 * (instance.shots + 1));
        assert!(conversation.messages.iter().all(|message| message.scored == (message.role == "assistant")));
        assert_eq!(task.to_row(&instance)["messages"].as_array().unwrap().len(), conversation.messages.len());
    }
}

#[test]
fn task_files_show_their_own_examples() {
    let set = set(json!({"kind": "natural", "task": "n", "file": {
        "Definition": "Add one.",
        "Positive Examples": [{"input": "1", "output": "2"}, {"input": "5", "output": "6"}],
        "Negative Examples": []
    }}));
    let rows = (0..8).map(|n| json!({"id": n, "input": n.to_string(), "output": [(n + 1).to_string()]}).to_string());
    let source = Source::Memory("row".into(), rows.map(String::into_bytes).collect());
    let few = options(json!({"styles": [0.0, 0.0, 0.0, 1.0],
        "few_shot": {"k": [2, 2], "max_tokens": 500, "same_template": true, "pool": 9, "all_targets": false}}));
    let (all, _) = made(&set, &few, 0, source).unwrap();
    assert_eq!(all.iter().map(|instance| instance.shots).collect::<Vec<_>>(), [2, 1, 2, 2, 2, 1, 2, 2]);
    assert!(all[1].pair.prompt.contains("Input: 5.\n Output: 6.") && !all[1].pair.prompt.contains("Output: 2"));
}

#[test]
fn options_that_do_not_fit_together_are_refused() {
    for bad in [
        json!({"styles": [0.0, 0.0, 0.0, 0.0]}),
        json!({"styles": [-1.0, 2.0, 0.0, 0.0]}),
        json!({"few_shot": null}),
        json!({"few_shot": {"k": [0, 3], "max_tokens": 9, "same_template": true, "pool": 9, "all_targets": false}}),
    ] {
        assert_eq!(made(&flan(), &options(bad), 0, sums(3)).unwrap_err().kind, Kind::Usage);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_question_is_never_among_its_demonstrations(
        seed: u64, rows in 1usize..40, repeats in 1usize..4, same: bool, pool in 1usize..40, k in 1usize..6,
    ) {
        let few = options(json!({"styles": [0.0, 1.0, 0.0, 1.0],
            "few_shot": {"k": [1, k], "max_tokens": 120, "same_template": same, "pool": pool, "all_targets": false}}));
        // The same rows again and again: the same content under other numbers.
        let Source::Memory(name, lines) = sums(rows) else { unreachable!() };
        let source = Source::Memory(name, vec![lines; repeats].concat());
        let (all, report) = made(&flan(), &few, seed, source).unwrap();
        let dropped = report.dropped.values().sum::<u64>();
        prop_assert_eq!(report.instances + dropped, report.rows);
        for instance in &all {
            let own = format!("{}+1", instance.row % rows as u64);
            prop_assert!(instance.shots >= 1 && instance.exemplars.len() == instance.shots && instance.shots <= k);
            prop_assert!(instance.pair.prompt.len() <= 120);
            for exemplar in &instance.exemplars {
                let asks = |text: &str| text.split(|c: char| !(c.is_ascii_digit() || c == '+')).any(|word| word == own);
                prop_assert!(!asks(&exemplar.prompt) && !asks(&exemplar.target), "{instance:?}");
            }
            prop_assert!(instance.pair.prompt.ends_with(instance.question.trim_end_matches(' ')));
        }
    }
}
