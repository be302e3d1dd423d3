//! `env`.

use clap::{Args, ValueEnum};
use sluice_conf::message::controlplane::environment::{Environment, Variable};
use sluice_conf::message::controlplane::{Reply, Request};
use sluice_controlplane::client::ClientError;
use sluice_controlplane::env::format::{self, Text};

use crate::output;
use crate::{Answer, Common, PARTLY};

/// Whose variables, and how they are written.
#[derive(Args)]
pub struct Wanted {
    /// How the variables are written.
    #[arg(long, value_enum, default_value = "shell")]
    format: Format,
    /// Only the Service kubernetes of the namespace default (enableServiceLinks: false).
    #[arg(long)]
    no_service_links: bool,
    /// A variable of the workload itself: comes first and is never replaced.
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    own: Vec<Variable>,
}

/// A format as it is written on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Commands for a POSIX shell, to be sourced.
    Shell,
    /// For docker run --env-file.
    Docker,
    /// For EnvironmentFile= of systemd.
    Systemd,
    /// A JSON object.
    Json,
}

impl From<Format> for format::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Shell => format::Format::Shell,
            Format::Docker => format::Format::Docker,
            Format::Systemd => format::Format::Systemd,
            Format::Json => format::Format::Json,
        }
    }
}

fn variable(text: &str) -> Result<Variable, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok(Variable::new(name, value)),
        _ => Err(format!("{text:?} is no variable; write NAME=VALUE")),
    }
}

pub fn run(common: &Common, wanted: &Wanted) -> anyhow::Result<Answer> {
    let Some(namespace) = common.listed_namespace() else {
        anyhow::bail!("variables are those of one namespace; name it with --namespace");
    };
    let request = Request::Environment {
        namespace: namespace.clone(),
        service_links: !wanted.no_service_links,
        own: wanted.own.clone(),
    };
    let Reply::Environment(environment) = common.ask_controlplane(&request)? else {
        return Err(ClientError::Unexpected("control plane").into());
    };
    if let Some(text) = output::structured(common.output, &environment.variables)? {
        return Ok(Answer::of(text));
    }
    Ok(told(&namespace, &environment, wanted.format))
}

fn told(namespace: &str, environment: &Environment, format: Format) -> Answer {
    let Text { text, left_out } = format::write(format.into(), &environment.variables);
    let mut remarks: Vec<String> = left_out
        .iter()
        .map(|left| format!("left out: {}: {}", left.name.escape_debug(), left.reason))
        .collect();
    if !environment.namespace_exists {
        remarks.push(format!("nothing is known of a namespace {namespace}"));
    }
    Answer {
        text,
        remark: (!remarks.is_empty()).then(|| remarks.join("\n")),
        code: if left_out.is_empty() { 0 } else { PARTLY },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(namespace_exists: bool, names: &[&str]) -> Environment {
        let variables = names.iter().map(|name| Variable::new(*name, "x"));
        Environment {
            namespace_exists,
            variables: variables.collect(),
        }
    }

    #[test]
    fn what_a_format_cannot_express_is_told_beside_the_text() {
        let names = ["1WEB_PORT", "WEB_PORT"];
        let answer = told("shop", &environment(true, &names), Format::Shell);
        assert_eq!(answer.text, "export WEB_PORT='x'\n");
        assert_eq!(answer.code, PARTLY);
        let remark = answer.remark.unwrap();
        assert!(remark.starts_with("left out: 1WEB_PORT: "), "{remark}");
        let answer = told("shop", &environment(true, &names), Format::Docker);
        assert_eq!((answer.code, answer.remark), (0, None));
    }

    #[test]
    fn a_namespace_that_nobody_knows_is_named() {
        let answer = told("shp", &environment(false, &[]), Format::Json);
        assert_eq!(answer.text, "{}\n");
        assert_eq!(answer.code, 0);
        assert_eq!(
            answer.remark.unwrap(),
            "nothing is known of a namespace shp"
        );
    }

    #[test]
    fn a_variable_is_a_name_and_a_value() {
        assert_eq!(variable("A=b=c"), Ok(Variable::new("A", "b=c")));
        assert_eq!(variable("A="), Ok(Variable::new("A", "")));
        for wrong in ["A", "=b", ""] {
            assert!(variable(wrong).is_err(), "{wrong}");
        }
    }
}
