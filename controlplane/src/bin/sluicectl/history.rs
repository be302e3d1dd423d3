//! `history` and `rollback`.

use clap::Args;
use jiff::Timestamp;
use sluice_conf::Generation;
use sluice_conf::message::controlplane::history::{Force, GenerationRow};
use sluice_conf::message::controlplane::{Reply, Request};
use sluice_controlplane::client::ClientError;

use crate::output::{self, table};
use crate::{Answer, Common};

/// Where to go back to.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct Back {
    /// The generation whose table is put in force and kept there.
    generation: Option<u64>,
    /// Lets the table follow the objects again.
    #[arg(long)]
    release: bool,
}

pub fn history(common: &Common) -> anyhow::Result<Answer> {
    let Reply::History(rows) = common.ask_controlplane(&Request::History)? else {
        return Err(ClientError::Unexpected("control plane").into());
    };
    Ok(Answer::of(
        match output::structured(common.output, &rows)? {
            Some(text) => text,
            None => history_table(&rows),
        },
    ))
}

pub fn rollback(common: &Common, back: &Back) -> anyhow::Result<Answer> {
    let request = match back.generation {
        Some(generation) => Request::Rollback(Generation(generation)),
        None => Request::Release,
    };
    let Reply::Force(force) = common.ask_controlplane(&request)? else {
        return Err(ClientError::Unexpected("control plane").into());
    };
    Ok(Answer::of(
        match output::structured(common.output, &force)? {
            Some(text) => text,
            None => told(force),
        },
    ))
}

fn told(Force { generation, pinned }: Force) -> String {
    match pinned {
        Some(pinned) => format!(
            "Generation {generation} is a copy of generation {pinned} and pinned: no change has any \
             effect before `sluicectl rollback --release`.\n"
        ),
        None => format!("Generation {generation} is in force and follows the objects.\n"),
    }
}

fn history_table(rows: &[GenerationRow]) -> String {
    let cells = |row: &GenerationRow| {
        let seconds = i64::try_from(row.unix_seconds).unwrap_or(i64::MAX);
        let when = Timestamp::from_second(seconds);
        let mut changed = row.summary.clone();
        if let Some(back) = row.rolled_back_to {
            changed = format!("rolled back to {back}: {changed}");
        }
        vec![
            row.generation.to_string(),
            when.map_or_else(|_| "?".to_owned(), |when| when.to_string()),
            if row.in_force { "yes" } else { "" }.to_owned(),
            changed,
        ]
    };
    let rows: Vec<Vec<String>> = rows.iter().rev().map(cells).collect();
    table(&["GENERATION", "WHEN", "IN FORCE", "CHANGED"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_generation_stands_first() {
        let row = |generation, summary: &str, in_force, back| GenerationRow {
            generation: Generation(generation),
            unix_seconds: 1_700_000_000 + generation,
            summary: summary.into(),
            in_force,
            rolled_back_to: back,
        };
        let rows = [
            row(1, "added default/web", false, None),
            row(7, "changed default/web", true, Some(Generation(1))),
        ];
        assert_eq!(
            history_table(&rows),
            "\
GENERATION   WHEN                   IN FORCE   CHANGED
7            2023-11-14T22:13:27Z   yes        rolled back to 1: changed default/web
1            2023-11-14T22:13:21Z              added default/web
"
        );
    }

    #[test]
    fn a_pin_is_told_with_its_way_out() {
        let (generation, pinned) = (Generation(9), Some(Generation(4)));
        let text = told(Force { generation, pinned });
        assert!(
            text.contains("copy of generation 4") && text.contains("--release"),
            "{text}"
        );
    }
}
