//! Comparing all tags of a bucket at once.

/// Tags of a bucket.
pub const WAYS: usize = 10;

/// The places at which `tag` stands, a bit each.
#[inline]
pub fn equal(tags: &[u16; WAYS], tag: u16) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        equal_by_vectors(tags, tag)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        equal_one_by_one(tags, tag)
    }
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn equal_one_by_one(tags: &[u16; WAYS], tag: u16) -> u32 {
    let places = (0..).zip(tags).filter(|(_, found)| **found == tag);
    places.fold(0, |all, (place, _)| all | 1 << place)
}

/// Two vectors of eight tags, of which the second begins with the third tag.
#[cfg(target_arch = "x86_64")]
#[inline]
fn equal_by_vectors(tags: &[u16; WAYS], tag: u16) -> u32 {
    use std::arch::x86_64::{
        _mm_cmpeq_epi16, _mm_loadu_si128, _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16,
    };
    const BEHIND: usize = WAYS - 8;
    let tags = tags.as_ptr();
    // SAFETY: SSE2 is part of every x86-64 processor; both loads lie within the ten tags, and need
    // no alignment.
    #[expect(unsafe_code, reason = "vector instructions take pointers")]
    let both = unsafe {
        let wanted = _mm_set1_epi16(tag as i16);
        let first = _mm_cmpeq_epi16(_mm_loadu_si128(tags.cast()), wanted);
        let second = _mm_cmpeq_epi16(_mm_loadu_si128(tags.add(BEHIND).cast()), wanted);
        _mm_movemask_epi8(_mm_packs_epi16(first, second)) as u32
    };
    both & 0xff | both >> 8 << BEHIND
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn vectors_find_what_looking_one_by_one_finds(
            tags in any::<[u16; WAYS]>().prop_map(|tags| tags.map(|tag| tag % 4)),
            tag in 0u16..4,
        ) {
            prop_assert_eq!(equal(&tags, tag), equal_one_by_one(&tags, tag));
        }

        #[test]
        fn every_bit_of_a_tag_counts(tags in any::<[u16; WAYS]>(), place in 0..WAYS, bit in 0u32..16) {
            let other = tags[place] ^ (1 << bit);
            prop_assert_eq!(equal(&tags, other) & 1 << place, 0);
            prop_assert_ne!(equal(&tags, tags[place]) & 1 << place, 0);
        }
    }
}
