//! Work that is shared out among the cores.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, available_parallelism};

/// Does `work` for each item, on as many cores as there are; the results stand in the order of the
/// items, whoever was first. What panics, panics here. Without threads it takes longer and does the
/// same.
pub(crate) fn map<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let cores = match items {
        [] | [_] => 1,
        _ => cores().min(items.len()),
    };
    if cores < 2 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let turn = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(number) else {
                return done;
            };
            done.push((number, work(item)));
        }
    };
    let mut done = thread::scope(|scope| {
        let helper = |_| thread::Builder::new().spawn_scoped(scope, turn).ok();
        let helpers: Vec<_> = (1..cores).filter_map(helper).collect();
        let mut done = turn();
        for helper in helpers {
            done.extend(helper.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        done
    });
    done.sort_unstable_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

/// How many cores there are. To ask costs as much as to read a small file, so it is asked once.
fn cores() -> usize {
    static CORES: LazyLock<usize> =
        LazyLock::new(|| available_parallelism().map_or(1, NonZero::get));
    *CORES
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    #[test]
    fn results_stand_in_the_order_of_the_items() {
        for length in [0, 1, 2, 3, 1000] {
            let items: Vec<usize> = (0..length).collect();
            let squares = map(&items, |item| item * item);
            let wanted: Vec<usize> = items.iter().map(|item| item * item).collect();
            assert_eq!(squares, wanted);
        }
    }

    #[test]
    fn a_panic_of_the_work_is_a_panic_of_the_caller() {
        let items: Vec<usize> = (0..100).collect();
        let result = catch_unwind(|| map(&items, |item| assert_ne!(*item, 50)));
        assert!(result.is_err());
    }
}
