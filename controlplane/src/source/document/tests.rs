//! Files cut into documents, and documents into values.

use super::*;
use proptest::prelude::*;

fn texts(text: &str) -> Vec<(u32, &str)> {
    split(text).iter().map(|d| (d.line, d.text)).collect()
}

fn only(text: &str) -> Node {
    let documents = split(text);
    assert_eq!(documents.len(), 1, "{documents:?}");
    parse(&documents[0]).unwrap()
}

#[test]
fn a_file_is_cut_at_its_markers() {
    assert_eq!(
        texts("a: 1\n---\nb: 2\n"),
        [(1, "a: 1\n"), (2, "---\nb: 2\n")]
    );
    assert_eq!(texts("# head\n---\na: 1\n"), [(1, "# head\n---\na: 1\n")]);
    assert_eq!(
        texts("%YAML 1.2\n---\na: 1\n...\n# end\n---\n"),
        [(1, "%YAML 1.2\n---\na: 1\n")]
    );
    assert_eq!(texts("---\n---\n\n--- \n"), []);
    assert_eq!(texts("text: |\n  ---\n  ---x\n").len(), 1);
    assert_eq!(texts("\u{feff}a: 1"), [(1, "a: 1")]);
}

#[test]
fn every_value_knows_its_line() {
    let node = only("# first\n---\nspec:\n  ports:\n  - name: a\n    port: 80\n  - {port: 81}\n");
    assert_eq!(node.line_of("spec.ports[0].port"), 6);
    assert_eq!(node.line_of("spec.ports[1].port"), 7);
    assert_eq!(node.line_of("spec.ports[1].missing"), 7);
    assert_eq!(node.line_of("spec.ports[0].name"), 5);
}

#[test]
fn a_key_with_dots_has_a_line() {
    let node = only("metadata:\n  annotations:\n    b.c/d: x\n    sluice.dev/weights: x\n");
    assert_eq!(node.line_of("metadata.annotations.sluice.dev/weights"), 4);
}

#[test]
fn json_is_read_too() {
    let node =
        only("{\n\t\"kind\": \"Service\",\n\t\"spec\": {\"ports\": [\n{\"port\": 80}]}\n}\n");
    assert_eq!(node.get("kind").and_then(Node::text), Some("Service"));
    assert_eq!(node.line_of("spec.ports[0].port"), 4);
}

#[test]
fn a_mistake_is_named_with_the_line_of_the_file() {
    let documents = split("a: 1\n---\nb: [1, 2\nc: 3\n");
    assert_eq!(documents.len(), 2);
    let error = parse(&documents[1]).unwrap_err();
    assert!((3..=4).contains(&error.line), "{error:?}");
    assert!(
        error.message.starts_with("is not valid YAML: "),
        "{error:?}"
    );
    assert!(!error.message.contains('\n'));
}

#[test]
fn mistakes_are_named_in_words_of_yaml_and_not_of_the_parser() {
    for (text, message) in [
        ("a: 1\n\tb: 2\n", "found a tab; YAML is indented by spaces"),
        ("a:\n  b: 1\n  b: 2\n", "the key b is there twice"),
        ("a: &x [*x]\n", "an alias holds itself"),
        ("a: *x\n", "an alias has no anchor"),
        (
            &format!("{}{}", "[".repeat(100), "]".repeat(100)),
            "is nested too deep, too long or repeats too much by aliases; flatten or divide it",
        ),
    ] {
        let error = parse(&split(text)[0]).unwrap_err();
        assert!(error.message.ends_with(message), "{error:?}");
        assert!(!error.message.contains(" line "), "{error:?}");
    }
}

#[test]
fn a_bomb_of_aliases_is_refused() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..10 {
        let parent = format!("*a{}, ", level - 1).repeat(10);
        text.push_str(&format!("a{level}: &a{level} [{parent}]\n"));
    }
    let documents = split(&text);
    assert!(parse(&documents[0]).is_err());
}

#[test]
fn nesting_without_end_is_refused() {
    for open in ["[", "{a: ", "- ", "? "] {
        let text = open.repeat(100_000);
        for document in split(&text) {
            assert!(parse(&document).is_err(), "{open}");
        }
    }
}

#[test]
fn a_small_anchor_is_followed() {
    let node = only("base: &b {port: 80}\nuse: *b\nmerged:\n  <<: *b\n  name: x\n");
    let port = |key| &node.get(key).and_then(|n| n.get("port")).unwrap().value;
    assert_eq!(port("use"), &Value::Number(80.into()));
    assert_eq!(port("merged"), &Value::Number(80.into()));
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}", lines in "([a-z{}\\[\\]:&*!|>'\"% -]{0,12}\n){0,12}") {
        for text in [text, lines] {
            for document in split(&text) {
                let _ = parse(&document);
            }
        }
    }
}
