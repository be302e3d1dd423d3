//! The kept conformance cases, and what the runner does with files that are wrong.

use std::path::{Path, PathBuf};
use std::process::Command;

use sluice_tests::conformance::{self, Outcome};

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance")
}

/// The kept cases of a suite with some text replaced, in a folder of their own.
fn altered(suite: &str, edits: &[(&str, &str)]) -> std::io::Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    let name = format!("{suite}.yaml");
    let mut text = std::fs::read_to_string(kept().join(&name))?;
    for (from, to) in edits {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    std::fs::write(folder.path().join(name), text)?;
    Ok(folder)
}

#[test]
fn every_kept_case_passes() {
    for suite in conformance::SUITES {
        let report = conformance::run(suite, &kept()).unwrap();
        assert_eq!(report.failed(), 0, "{:#?}", report.lines(false));
        assert_eq!(report.not_applicable(), 0, "{:#?}", report.lines(true));
        assert!(report.passed() >= 5);
    }
}

#[test]
fn a_wrong_expectation_fails_its_case_and_no_other() {
    for (from, to, id) in [
        (
            "endpoints: ['10.1.0.21:500'], masquerade: false",
            "endpoints: ['10.1.0.21:500'], masquerade: true",
            "local/client-kept-sctp",
        ),
        (
            "endpoints: ['[fd00:10::21]:500']",
            "endpoints: ['[fd00:10::21]:500', '[fd00:10::22]:500']",
            "local/pod-gets-any-v6",
        ),
        (
            "endpoints: ['10.1.0.31:5060', '10.1.0.32:5060', '10.1.0.33:5060']",
            "endpoints: ['10.1.0.31:5060', '10.1.0.32:5060']",
            "affinity/every-endpoint-is-met",
        ),
        (
            "port: 54, expect: {action: reject}",
            "port: 54, expect: {action: drop}",
            "both/undefined-port-v6",
        ),
        (
            "port: 30054, expect: {action: not-handled}",
            "port: 30053, expect: {action: not-handled}",
            "both/another-port-of-the-node",
        ),
        (
            "timeoutSeconds: 60",
            "timeoutSeconds: 61",
            "sluice-affinity-both-families",
        ),
        (
            "172.30.0.42:80/TCP: ['10.1.0.45:8080']",
            "172.30.0.42:80/TCP: ['172.30.0.40:8080']",
            "sluice-lives",
        ),
    ] {
        let folder = altered("proxy-flows", &[(from, to)]).unwrap();
        let report = conformance::run("proxy-flows", folder.path()).unwrap();
        let failed = report.cases().iter();
        let failed = failed.filter(|(_, outcome)| matches!(outcome, Outcome::Failed(_)));
        let failed: Vec<&str> = failed.map(|(id, _)| id.as_str()).collect();
        assert_eq!(failed, [id], "{:#?}", report.lines(false));
    }
}

#[test]
fn a_case_that_cannot_be_read_fails_with_its_place_and_the_rest_is_run() {
    let edits = [
        ("port: 54, expect", "port: 65536, expect"),
        ("masquerade: true}}", "masquerade: true, colour: red}}"),
    ];
    let folder = altered("proxy-flows", &edits).unwrap();
    let report = conformance::run("proxy-flows", folder.path()).unwrap();
    let lines = report.lines(false).join("\n");
    assert!(
        lines.contains("FAILED both/undefined-port-v6: cannot be read: port:"),
        "{lines}"
    );
    assert!(
        lines.contains("FAILED both/udp-v6-outside: unknown expectation expect.colour"),
        "{lines}"
    );
    assert!(report.passed() > 5, "{lines}");
}

#[test]
fn the_exit_code_tells_passed_failed_and_unreadable_apart() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_conformance"))
            .args(arguments)
            .output()
            .unwrap();
        let last = String::from_utf8(output.stdout).unwrap();
        (
            output.status.code(),
            last.lines().last().unwrap_or_default().to_owned(),
        )
    };
    let kept = kept();
    let kept = kept.to_str().unwrap();
    assert_eq!(
        run(&["maglev", kept]),
        (Some(0), "5 passed, 0 failed".to_owned())
    );
    let wrong = altered("maglev", &[("max_count: 101", "max_count: 102")]).unwrap();
    let wrong = wrong.path().to_str().unwrap();
    assert_eq!(
        run(&["maglev", wrong]),
        (Some(1), "4 passed, 1 failed".to_owned())
    );
    let other = altered("maglev", &[("maglev/v1", "maglev/v2")]).unwrap();
    for arguments in [
        vec!["maglev", "/nowhere"],
        vec!["maglev", other.path().to_str().unwrap()],
        vec!["no-such-suite", kept],
        vec!["maglev"],
        vec![],
    ] {
        assert_eq!(run(&arguments), (Some(2), String::new()), "{arguments:?}");
    }
}
