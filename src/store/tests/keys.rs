//! Keys sort as their bytes, whatever the types, and come back as they were.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::{collection::vec, prelude::*};
use vatra_store::{Key, Position};

fn encoded(key: &impl Key) -> Vec<u8> {
    let mut out = Vec::new();
    key.encode(&mut out);
    out
}

/// Both orders agree, and both keys come back whole.
fn check<K: Key + Ord + std::fmt::Debug>(left: K, right: K) -> Result<(), TestCaseError> {
    let (left_bytes, right_bytes) = (encoded(&left), encoded(&right));
    prop_assert_eq!(
        left.cmp(&right),
        left_bytes.cmp(&right_bytes),
        "{:?} and {:?}",
        left,
        right
    );
    if left != right {
        prop_assert!(
            !right_bytes.starts_with(&left_bytes),
            "{:?} is a prefix of {:?}",
            left,
            right
        );
    }
    for (key, bytes) in [(left, left_bytes), (right, right_bytes)] {
        let mut input = bytes.as_slice();
        prop_assert_eq!(K::decode(&mut input).unwrap(), key);
        prop_assert!(input.is_empty());
    }
    Ok(())
}

/// Bytes that meet the edges of the encoding often.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![Just(0), Just(1), Just(0xfe), Just(0xff), any::<u8>()]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(byte(), 0..6)
}

fn text() -> impl Strategy<Value = String> {
    vec(
        prop_oneof![Just('\0'), Just('a'), Just('\u{ff}'), any::<char>()],
        0..5,
    )
    .prop_map(|chars| chars.into_iter().collect())
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..4_u64, (0..64_u32).prop_map(|bit| 1 << bit), any::<u64>()]
}

fn signed() -> impl Strategy<Value = i64> {
    number().prop_map(u64::cast_signed)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn numbers(left in number(), right in number()) {
        check(left, right)?;
        check(Position(left), Position(right))?;
        check(left.cast_signed(), right.cast_signed())?;
        check(left & 1 == 0, right & 1 == 0)?;
        let (left, right) = (left.to_le_bytes(), right.to_le_bytes());
        check(left, right)?;
        check(u32::from_le_bytes([left[0], left[1], 0, left[7]]), u32::from_le_bytes([right[0], right[1], 0, right[7]]))?;
        check(u16::from_le_bytes([left[0], left[7]]), u16::from_le_bytes([right[0], right[7]]))?;
    }

    #[test]
    fn strings(left in text(), right in text()) {
        check(left.clone().into_bytes(), right.clone().into_bytes())?;
        check(left, right)?;
    }

    #[test]
    fn byte_strings(left in bytes(), right in bytes()) {
        check(left, right)?;
    }

    #[test]
    fn tuples(
        left in (bytes(), signed(), text(), any::<bool>(), number()),
        right in (bytes(), signed(), text(), any::<bool>(), number()),
        same in 0..5_usize,
    ) {
        // Equal first parts, so that the later ones decide.
        let mut right = right;
        if same > 0 { right.0 = left.0.clone() }
        if same > 1 { right.1 = left.1 }
        if same > 2 { right.2 = left.2.clone() }
        if same > 3 { right.3 = left.3 }
        check((left.0.clone(), left.1), (right.0.clone(), right.1))?;
        check((left.2.clone(), left.0.clone(), left.4), (right.2.clone(), right.0.clone(), right.4))?;
        check(left, right)?;
    }

    #[test]
    fn bytes_that_are_no_key_are_an_error_and_no_panic(input in bytes()) {
        let mut rest = input.as_slice();
        if let Ok(key) = <(String, u16, bool)>::decode(&mut rest) {
            prop_assert_eq!(&input[..input.len() - rest.len()], encoded(&key));
        }
    }
}
