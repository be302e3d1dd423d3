//! `drops`.

use sluice_conf::message::dataplane::{Drop, Reply, Request};
use sluice_controlplane::client::ClientError;

use crate::output::{self, table};
use crate::{Answer, Common};

pub fn run(common: &Common, all: bool, explain: bool) -> anyhow::Result<Answer> {
    let Reply::Stats(stats) = common.ask_dataplane(&Request::Stats)? else {
        return Err(ClientError::Unexpected("dataplane").into());
    };
    let mut drops = stats.drops;
    drops.retain(|drop| all || drop.frames > 0);
    if let Some(text) = output::structured(common.output, &drops)? {
        return Ok(Answer::of(text));
    }
    if drops.is_empty() {
        return Ok(Answer {
            text: String::new(),
            remark: Some("No frames were dropped".to_owned()),
            code: 0,
        });
    }
    let text = match explain {
        true => explained(&drops),
        false => drops_table(&drops),
    };
    Ok(Answer::of(text))
}

/// A paragraph each: what it means and what to do.
fn explained(drops: &[Drop]) -> String {
    let paragraphs: Vec<String> = drops
        .iter()
        .map(|drop| {
            format!(
                "{} ({} frames)\n  {}\n  What to do: {}\n",
                drop.reason, drop.frames, drop.description, drop.remedy
            )
        })
        .collect();
    paragraphs.join("\n")
}

fn drops_table(drops: &[Drop]) -> String {
    let rows: Vec<Vec<String>> = drops
        .iter()
        .map(|drop| {
            let frames = drop.frames.to_string();
            vec![drop.reason.clone(), frames, drop.description.clone()]
        })
        .collect();
    table(&["REASON", "FRAMES", "DESCRIPTION"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_route() -> Drop {
        Drop {
            reason: "no-route".into(),
            description: "The kernel knows no route to the backend.".into(),
            remedy: "Add one.".into(),
            frames: 12,
        }
    }

    #[test]
    fn an_explained_reason_says_what_to_do() {
        assert_eq!(
            explained(&[no_route()]),
            "\
no-route (12 frames)
  The kernel knows no route to the backend.
  What to do: Add one.
"
        );
    }

    #[test]
    fn a_reason_is_one_line() {
        assert_eq!(
            drops_table(&[no_route()]),
            "\
REASON     FRAMES   DESCRIPTION
no-route   12       The kernel knows no route to the backend.
"
        );
    }
}
