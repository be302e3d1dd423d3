use std::collections::BTreeMap;
use std::process::Command;

use proptest::prelude::*;

use super::*;

const ALL: [Format; 4] = [Format::Shell, Format::Docker, Format::Systemd, Format::Json];

fn of(name: &str, value: &str) -> Variable {
    Variable::new(name, value)
}

fn text(format: Format, variables: &[Variable]) -> String {
    let written = write(format, variables);
    assert_eq!(written.left_out, []);
    written.text
}

#[test]
fn each_format_has_its_own_lines() {
    let two = [of("WEB_PORT", "tcp://[fd00::1]:80"), of("B", "it's $HOME")];
    assert_eq!(
        text(Format::Shell, &two),
        "export WEB_PORT='tcp://[fd00::1]:80'\nexport B='it'\\''s $HOME'\n"
    );
    assert_eq!(
        text(Format::Docker, &two),
        "WEB_PORT=tcp://[fd00::1]:80\nB=it's $HOME\n"
    );
    assert_eq!(
        text(Format::Systemd, &two),
        "WEB_PORT=\"tcp://[fd00::1]:80\"\nB=\"it's \\$HOME\"\n"
    );
    assert_eq!(
        text(Format::Json, &two),
        "{\n  \"WEB_PORT\": \"tcp://[fd00::1]:80\",\n  \"B\": \"it's $HOME\"\n}\n"
    );
    assert_eq!(text(Format::Json, &[]), "{}\n");
}

#[test]
fn a_name_that_begins_with_a_digit_is_left_out_where_it_cannot_be_read() {
    let digit = [of("1WEB_PORT", "x"), of("WEB_PORT", "y")];
    for format in [Format::Shell, Format::Systemd] {
        let written = write(format, &digit);
        assert_eq!(written.left_out.len(), 1, "{format:?}");
        assert_eq!(written.left_out[0].name, "1WEB_PORT");
        assert!(!written.text.contains("1WEB"), "{}", written.text);
        assert!(written.text.contains("WEB_PORT"), "{}", written.text);
    }
    assert_eq!(text(Format::Docker, &digit), "1WEB_PORT=x\nWEB_PORT=y\n");
    assert!(text(Format::Json, &digit).contains("1WEB_PORT"));
}

#[test]
fn names_and_values_that_would_break_a_line_are_left_out() {
    let broken = [
        (Format::Shell, of("A;reboot", "x")),
        (Format::Shell, of("", "x")),
        (Format::Shell, of("A", "\0")),
        (Format::Docker, of("A", "x\nB=y")),
        (Format::Docker, of("A", "x\r")),
        (Format::Docker, of("#A", "x")),
        (Format::Docker, of("A B", "x")),
        (Format::Docker, of("A", &"x".repeat(MAX_DOCKER_LINE))),
        (Format::Systemd, of("A=B", "x")),
        (Format::Systemd, of("A", "\u{1b}[0m")),
    ];
    for (format, variable) in broken {
        let written = write(format, std::slice::from_ref(&variable));
        assert_eq!(written.text, "", "{format:?} {variable:?}");
        assert_eq!(written.left_out.len(), 1);
        assert_eq!(written.left_out[0].name, variable.name);
    }
}

/// Variables as somebody else than Sluice reads them from a text.
fn read(format: Format, text: &str) -> BTreeMap<String, String> {
    match format {
        Format::Shell => sourced(text),
        Format::Docker => docker_reads(text),
        Format::Systemd => systemd_reads(text),
        Format::Json => serde_json::from_str(text).unwrap(),
    }
}

/// What a real shell has after sourcing the text.
fn sourced(text: &str) -> BTreeMap<String, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let output = Command::new("sh")
        .args(["-euc", ". \"$1\"; exec env -0", "sh"])
        .arg(file.path())
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let variables = printed
        .split_terminator('\0')
        .filter_map(|v| v.split_once('='));
    let own = variables.filter(|(name, _)| name.starts_with("V_"));
    own.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// As `opts/file.go` of the Docker CLI reads it.
fn docker_reads(text: &str) -> BTreeMap<String, String> {
    let lines = text.split_terminator('\n').map(|l| l.trim_start());
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pair = |line: &str| {
        line.split_once('=')
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
    };
    lines.map(|line| pair(line).unwrap()).collect()
}

/// As systemd's `parse_env_file` reads values in double quotes.
fn systemd_reads(text: &str) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let mut rest = text;
    while let Some((name, behind)) = rest.split_once("=\"") {
        let (mut value, mut letters) = (String::new(), behind.char_indices());
        let end = loop {
            match letters.next().unwrap() {
                (place, '"') => break place,
                (_, '\\') => value.push(letters.next().unwrap().1),
                (_, letter) => value.push(letter),
            }
        };
        variables.insert(name.to_owned(), value);
        rest = behind[end + 1..].strip_prefix('\n').unwrap();
    }
    assert_eq!(rest, "");
    variables
}

const VALUES: &str = "[a'\"$`\\\\\n\t =#!~*]{0,8}|\\PC{0,8}|(?s:.{0,4})";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read_again_and_the_rest_is_told(
        given in prop::collection::btree_map("V_[A-Z0-9_]{0,6}|[ -~]{0,5}", VALUES, 0..8)
    ) {
        let variables: Vec<Variable> = given.iter().map(|(n, v)| of(n, v)).collect();
        for format in ALL {
            let written = write(format, &variables);
            let mut wanted = given.clone();
            for left in &written.left_out {
                prop_assert!(wanted.remove(&left.name).is_some());
            }
            if format == Format::Shell {
                // Others would be those of the shell itself, like PATH.
                wanted.retain(|name, _| name.starts_with("V_"));
            }
            prop_assert_eq!(read(format, &written.text), wanted);
        }
    }
}
