//! `drops`.

use sluice_conf::message::dataplane::{Drop, Reply, Request};
use sluice_controlplane::client::ClientError;

use crate::output::{self, table};
use crate::{Answer, Common};

pub fn run(common: &Common, all: bool) -> anyhow::Result<Answer> {
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
    Ok(Answer::of(drops_table(&drops)))
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

    #[test]
    fn a_reason_is_one_line() {
        let drop = Drop {
            reason: "no-route".into(),
            description: "The kernel knows no route to the backend.".into(),
            frames: 12,
        };
        assert_eq!(
            drops_table(&[drop]),
            "\
REASON     FRAMES   DESCRIPTION
no-route   12       The kernel knows no route to the backend.
"
        );
    }
}
