//! When so few are healthy that health is not to be believed (Envoy's panic threshold): those few
//! would drown in the traffic of all, and what makes everything fail at once is more often the way
//! to it than the backends.

/// Which members of a group are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// For each member, in the order given, whether it is used.
    pub used: Vec<bool>,
    /// Why health is ignored, if it is.
    pub ignored: Option<String>,
}

/// The healthy ones of a group, or all when fewer than `floor_percent` of it are healthy. With a
/// floor of 0 health is never ignored, even when nobody is healthy.
pub fn effective(healthy: &[bool], floor_percent: u8) -> Effective {
    let (count, all) = (healthy.iter().filter(|h| **h).count(), healthy.len());
    if count.saturating_mul(100) >= all.saturating_mul(usize::from(floor_percent)) {
        return Effective {
            used: healthy.to_vec(),
            ignored: None,
        };
    }
    Effective {
        used: vec![true; all],
        ignored: Some(format!(
            "health is ignored: {count} of {all} healthy, less than {floor_percent} %"
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn below_the_floor_all_are_used_and_the_reason_is_told() {
        let one_of_four = [true, false, false, false];
        let open = effective(&one_of_four, 50);
        assert_eq!(open.used, [true; 4]);
        assert_eq!(
            open.ignored.unwrap(),
            "health is ignored: 1 of 4 healthy, less than 50 %"
        );
        let at_the_floor = effective(&one_of_four, 25);
        assert_eq!(at_the_floor.used, one_of_four);
        assert_eq!(at_the_floor.ignored, None);
    }

    #[test]
    fn without_a_floor_health_is_always_believed() {
        assert_eq!(effective(&[false, false], 0).used, [false, false]);
        assert_eq!(effective(&[], 100).used, [true; 0]);
    }

    proptest! {
        #[test]
        fn either_the_healthy_or_all_are_used(
            healthy in prop::collection::vec(any::<bool>(), 0..40),
            floor in 0u8..=100,
        ) {
            let count = healthy.iter().filter(|h| **h).count();
            let share = 100.0 * count as f64 / healthy.len() as f64;
            let effective = effective(&healthy, floor);
            prop_assert_eq!(effective.ignored.is_some(), share < f64::from(floor));
            match effective.ignored {
                Some(_) => prop_assert_eq!(effective.used, vec![true; healthy.len()]),
                None => prop_assert_eq!(effective.used, healthy),
            }
        }
    }
}
