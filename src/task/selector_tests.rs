//! Tables and properties of selectors.

use proptest::prelude::*;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn read(text: &str) -> Selector {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn conditions_match_as_in_kubernetes() {
    let runner = labels(&[("os", "linux"), ("gpu", "h200"), ("empty", "")]);
    for (text, holds) in [
        ("", true),
        ("os=linux", true),
        ("os == linux", true),
        ("os=mac", false),
        ("absent=x", false),
        ("gpu in (a100, h200)", true),
        ("gpu in (a100)", false),
        ("absent in (x)", false),
        ("gpu notin (a100)", true),
        ("gpu notin (a100,h200)", false),
        ("absent notin (x)", true),
        ("absent!=x", true),
        ("os!=linux", false),
        ("gpu", true),
        ("absent", false),
        ("!absent", true),
        ("!gpu", false),
        ("empty=", true),
        ("empty in (,x)", true),
        ("os=linux,gpu in (h200),!spot", true),
        ("os=linux,!gpu", false),
        ("os=linux,os in (linux,mac)", true),
        ("os=linux,os=mac", false),
    ] {
        let selector = read(text);
        assert_eq!(selector.matches(&runner), holds, "{text}");
        assert_eq!(selector.mismatches(&runner).is_empty(), holds, "{text}");
    }
}

#[test]
fn a_mismatch_names_the_condition_and_the_label() {
    let selector = read("gpu in (a,b),os=linux,!spot");
    let found = selector.mismatches(&labels(&[("os", "mac"), ("spot", "yes")]));
    assert_eq!(
        found,
        [
            "os=linux: the label is mac",
            "gpu in (a,b): there is no such label",
            "!spot: the label is yes",
        ]
    );
}

#[test]
fn a_text_that_is_no_selector_is_refused_with_the_place() {
    for (text, at) in [
        (",", 0),
        ("a,", 2),
        ("a b", 2),
        ("a in b", 5),
        ("a in (b", 7),
        ("a inside (b)", 2),
        ("a=b c", 4),
        ("=b", 0),
        ("!", 1),
        ("!a=b", 2),
        ("a=(b)", 2),
        ("\"a", 0),
        ("a,,b", 2),
    ] {
        let error = text.parse::<Selector>().expect_err(text);
        assert_eq!(error.at, at, "{text}: {error}");
    }
}

#[test]
fn a_key_may_be_named_like_an_operator() {
    assert_eq!(read("in in (in)").match_labels, labels(&[("in", "in")]));
    assert_eq!(read("notin").match_expressions[0].operator, Operator::Exists);
}

#[test]
fn in_with_one_value_is_a_label() {
    let expression = Selector {
        match_labels: Labels::new(),
        match_expressions: vec![requirement(
            "a".into(),
            Operator::In,
            vec!["x".into(), "x".into()],
        )],
    };
    assert_eq!(expression.canonical(), read("a=x").canonical());
    assert_eq!(expression.canonical().match_labels, labels(&[("a", "x")]));
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => prop::sample::select(vec!["a", "b", "c", "in", "notin", "x-1"]).prop_map(str::to_owned),
        1 => "\\PC{0,4}",
    ]
}

fn any_requirement() -> impl Strategy<Value = Requirement> {
    let values = || prop::collection::vec(word(), 1..4);
    let operator = prop_oneof![
        values().prop_map(|values| (Operator::In, values)),
        values().prop_map(|values| (Operator::NotIn, values)),
        Just((Operator::Exists, Vec::new())),
        Just((Operator::DoesNotExist, Vec::new())),
    ];
    (word(), operator).prop_map(|(key, (operator, values))| requirement(key, operator, values))
}

fn any_selector() -> impl Strategy<Value = Selector> {
    (
        prop::collection::btree_map(word(), word(), 0..3),
        prop::collection::vec(any_requirement(), 0..5),
    )
        .prop_map(|(match_labels, match_expressions)| Selector { match_labels, match_expressions })
}

proptest! {
    #[test]
    fn what_is_printed_is_read_back(selector in any_selector()) {
        let text = selector.to_string();
        let back: Selector = text.parse().map_err(|e| TestCaseError::fail(format!("{text}: {e}")))?;
        prop_assert_eq!(back.canonical(), selector.canonical());
    }

    #[test]
    fn the_canonical_form_asks_for_the_same(
        selector in any_selector(),
        labels in prop::collection::btree_map(word(), word(), 0..4),
    ) {
        prop_assert_eq!(selector.canonical().matches(&labels), selector.matches(&labels));
    }

    #[test]
    fn the_canonical_form_does_not_depend_on_order_or_repetition(selector in any_selector()) {
        let canonical = selector.canonical();
        prop_assert_eq!(&canonical.canonical(), &canonical);
        let mut shuffled = selector.clone();
        shuffled.match_expressions.reverse();
        shuffled.match_expressions.extend(selector.match_expressions.iter().cloned());
        for condition in &mut shuffled.match_expressions {
            condition.values.reverse();
        }
        prop_assert_eq!(shuffled.canonical(), canonical);
    }

    #[test]
    fn any_text_is_answered(text in "[a-c=!,() \"in\\\\]{0,16}") {
        if let Ok(selector) = text.parse::<Selector>() {
            prop_assert!(selector.to_string().parse::<Selector>().is_ok());
        }
    }
}
