//! What goes wrong between the source and an API server: nothing is lost by it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sluice_tests::clock::{pause, wait_for};
use sluice_tests::kubernetes::cluster::Cluster;
use sluice_tests::kubernetes::faults::{End, Fault, Habits, Verb};
use sluice_tests::kubernetes::follower::{Follower, LIMIT};

use super::{ALL, SERVICES, SLICES, address, filled, holds, service, slice};

/// After whatever `disturb` does, changes arrive again, and nothing was ever told to be gone.
fn nothing_is_lost(disturb: impl FnOnce(&mut Cluster) -> Result<()>) -> Result<Follower> {
    let mut cluster = filled()?;
    let follower = Follower::start(&cluster)?;
    follower.wait("the first state", holds(&ALL))?;
    disturb(&mut cluster)?;
    let server = cluster.server()?;
    wait_for("every fault met", LIMIT, || {
        Ok((server.faults_left() == 0).then_some(()))
    })?;
    cluster.create(SERVICES, service("new"))?;
    cluster.create(SLICES, slice("new-1", "10.1.0.9"))?;
    let wanted = [&ALL[..], &["new", "new-1"]].concat();
    follower.wait("what came after", holds(&wanted))?;
    follower.wait_link("a good link", |link| link.connected)?;
    {
        let told = follower.told();
        ensure!(told.deleted.is_empty(), "gone: {:?}", told.deleted);
        for state in &told.states {
            ensure!(state.len() >= ALL.len(), "a state has shrunk: {state:?}");
        }
    }
    Ok(follower)
}

fn ended(end: &End) -> Result<()> {
    nothing_is_lost(|cluster| {
        for plural in [SERVICES, SLICES] {
            cluster.server()?.end_watches(plural, end.clone());
        }
        Ok(())
    })
    .with_context(|| format!("{end:?}"))
    .map(drop)
}

#[test]
fn watches_that_end_in_any_way_lose_nothing() -> Result<()> {
    ended(&End::Close)?;
    ended(&End::Break)?;
    ended(&End::Expire)?;
    for nonsense in [
        "<html>\n",
        "{\"type\":\"ADDED\",\"object\":{}}\n",
        "{\"type\":\"ADDED\",\"object\":{\"kind\":\"Pod\",\"metadata\":{\"name\":\"a\"}}}\n",
        "{\"type\":\"MOVED\",\"object\":{}}\n",
        "{\"type\":\"BOOKMARK\",\"object\":{}}\n",
        "{\"type\":\"ADDED\",\"obj",
        "\n",
        "[[[[[[[[\u{0}\n",
    ] {
        ended(&End::Say(nonsense.into()))?;
    }
    Ok(())
}

#[test]
fn an_event_without_end_is_cut_off() -> Result<()> {
    ended(&End::Say(vec![b'x'; 5 << 20]))
}

#[test]
fn requests_that_fail_in_any_way_lose_nothing() -> Result<()> {
    let refuse = |code, after| Fault::Refuse { code, after };
    for fault in [
        refuse(401, None),
        refuse(403, None),
        refuse(429, Some(1)),
        refuse(500, None),
        refuse(404, None),
        Fault::Break,
        Fault::Endless(b' '),
        Fault::Say(b"<html>\n".to_vec()),
        Fault::Say(b"{\"kind\":\"PodList\",\"metadata\":{\"resourceVersion\":\"1\"}}\n".to_vec()),
    ] {
        for paged in [false, true] {
            let disturbed = nothing_is_lost(|cluster| {
                let server = cluster.server()?;
                server.habits(Habits {
                    paged,
                    ..Habits::default()
                });
                server.fail(Verb::Watch, SERVICES, fault.clone());
                if paged {
                    server.fail(Verb::Watch, SERVICES, refuse(422, None));
                    server.fail(Verb::List, SERVICES, fault.clone());
                }
                server.end_watches(SERVICES, End::Expire);
                Ok(())
            });
            disturbed.with_context(|| format!("{fault:?}, paged {paged}"))?;
        }
    }
    Ok(())
}

#[test]
fn what_vanished_while_nobody_watched_is_gone_after_the_next_list_and_not_before() -> Result<()> {
    for paged in [false, true] {
        let mut cluster = filled()?;
        cluster.server()?.habits(Habits {
            paged,
            ..Habits::default()
        });
        let follower = Follower::start(&cluster)?;
        follower.wait("the first state", holds(&ALL))?;
        let held = Habits {
            paged,
            held: true,
            ..Habits::default()
        };
        cluster.server()?.habits(held);
        cluster.delete(SERVICES, "b")?;
        cluster.create(SERVICES, service("d"))?;
        cluster.server()?.compact();
        for plural in [SERVICES, SLICES] {
            cluster.server()?.end_watches(plural, End::Expire);
        }
        cluster.server()?.habits(Habits {
            paged,
            ..Habits::default()
        });
        follower.wait("the new state", holds(&["a", "c", "d", "a-1", "b-1"]))?;
        let told = follower.told();
        let deleted: Vec<&str> = told.deleted.iter().map(|id| id.name.as_str()).collect();
        ensure!(deleted == ["b"], "{deleted:?}");
        // What did not change was not told again.
        ensure!(told.applied == 6, "{} objects told", told.applied);
    }
    Ok(())
}

#[test]
fn doubled_and_disordered_events_change_nothing() -> Result<()> {
    let mut cluster = filled()?;
    let follower = Follower::start(&cluster)?;
    follower.wait("the first state", holds(&ALL))?;
    let odd = Habits {
        doubled: true,
        reversed: true,
        ..Habits::default()
    };
    cluster.server()?.habits(Habits { held: true, ..odd });
    cluster.create(SERVICES, service("d"))?;
    cluster.create(SERVICES, service("e"))?;
    cluster.delete(SERVICES, "d")?;
    cluster.patch(
        SLICES,
        "a-1",
        &json!({ "endpoints": [{ "addresses": ["10.1.0.7"] }] }),
    )?;
    cluster.patch(
        SLICES,
        "b-1",
        &json!({ "endpoints": [{ "addresses": ["10.1.0.8"] }] }),
    )?;
    cluster.patch(
        SLICES,
        "a-1",
        &json!({ "endpoints": [{ "addresses": ["10.1.0.9"] }] }),
    )?;
    cluster.server()?.habits(odd);
    follower.wait("all changes", |told| {
        holds(&["a", "b", "c", "e", "a-1", "b-1"])(told)
            && address(told, "a-1").as_deref() == Some("10.1.0.9")
            && address(told, "b-1").as_deref() == Some("10.1.0.8")
    })?;
    let told = follower.told();
    ensure!(
        told.deleted.iter().all(|id| id.name == "d"),
        "{:?}",
        told.deleted
    );
    Ok(())
}

#[test]
fn slow_answers_are_waited_for() -> Result<()> {
    for paged in [false, true] {
        let mut cluster = filled()?;
        cluster.server()?.habits(Habits {
            slow: true,
            paged,
            ..Habits::default()
        });
        let follower = Follower::start(&cluster)?;
        follower.wait("the first state", holds(&ALL))?;
        ensure!(
            follower.told().states.len() == 1,
            "{:?}",
            follower.told().states
        );
        cluster.delete(SERVICES, "a")?;
        follower.wait("a change", holds(&["b", "c", "a-1", "b-1"]))?;
    }
    Ok(())
}

#[test]
fn a_list_of_many_pages_is_one_state() -> Result<()> {
    let mut cluster = Cluster::stand_in()?;
    for number in 0..250 {
        cluster.create(SERVICES, service(&format!("s{number}")))?;
    }
    let server = cluster.server()?;
    server.habits(Habits {
        paged: true,
        ..Habits::default()
    });
    let follower = Follower::start(&cluster)?;
    follower.wait("all", |told| told.objects.len() == 250)?;
    let told = follower.told();
    ensure!(told.states.iter().all(|state| state.len() == 250));
    Ok(())
}

#[test]
fn a_server_that_goes_away_changes_nothing_and_is_found_again() -> Result<()> {
    let mut cluster = filled()?;
    let follower = Follower::start(&cluster)?;
    follower.wait("the first state", holds(&ALL))?;
    cluster.server()?.stop();
    follower.wait_link("a lost link", |link| {
        !link.connected && link.reason.is_some()
    })?;
    let lost = follower.link();
    ensure!(lost.synced && lost.server == "stand-in", "{lost:?}");
    let reason = lost.reason.unwrap_or_default();
    ensure!(reason.contains("cannot be reached"), "{reason}");
    pause(Duration::from_millis(300))?;
    ensure!(follower.told().objects.len() == ALL.len());
    cluster.server()?.compact();
    cluster.server()?.resume()?;
    follower.wait_link("the link again", |link| link.connected)?;
    cluster.delete(SERVICES, "a")?;
    follower.wait("what came after", holds(&["b", "c", "a-1", "b-1"]))?;
    let told = follower.told();
    ensure!(told.deleted.len() == 1, "{:?}", told.deleted);
    Ok(())
}
