//! Keys as bytes that sort like the keys.
//!
//! Every key type encodes itself so that the byte order of encodings is the order of the values, and so that no
//! encoding is a prefix of another of the same type. Tuples are their parts one after the other, so a tuple's first
//! parts are a prefix of its key: that is what [`crate::Range::prefix`] uses.
//!
//! To add a key type: if it wraps one that is here, [`crate::key_newtype!`]; else implement [`Key`] by hand and
//! add it to the property test in `tests/keys.rs`.

mod tuples;

use crate::{DecodeError, Position};

/// Something that can be a key, or a part of one.
pub trait Key: Sized {
    /// Appends the encoding. Byte order of encodings is value order.
    fn encode(&self, out: &mut Vec<u8>);

    /// Takes one encoding off the front of `input`.
    fn decode(input: &mut &[u8]) -> Result<Self, DecodeError>;
}

/// Implements [`Key`] for a newtype over a key: `key_newtype!(RoomSid(u64));`.
#[macro_export]
macro_rules! key_newtype {
    ($name:ident($inner:ty)) => {
        impl $crate::Key for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                <$inner as $crate::Key>::encode(&self.0, out);
            }

            fn decode(input: &mut &[u8]) -> Result<Self, $crate::DecodeError> {
                Ok(Self(<$inner as $crate::Key>::decode(input)?))
            }
        }
    };
}

key_newtype!(Position(u64));

macro_rules! unsigned {
    ($($type:ty),*) => {$(
        impl Key for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }

            fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
                Ok(Self::from_be_bytes(take(input, stringify!($type))?))
            }
        }
    )*};
}
unsigned!(u8, u16, u32, u64);

/// Takes `N` bytes off the front.
fn take<const N: usize>(input: &mut &[u8], what: &'static str) -> Result<[u8; N], DecodeError> {
    let (head, rest) = input
        .split_first_chunk::<N>()
        .ok_or_else(|| DecodeError::new(what))?;
    *input = rest;
    Ok(*head)
}

/// Flipping the sign bit makes two's complement sort as unsigned.
const SIGN: u64 = 1 << 63;

impl Key for i64 {
    fn encode(&self, out: &mut Vec<u8>) {
        (self.cast_unsigned() ^ SIGN).encode(out);
    }

    fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok((u64::decode(input)? ^ SIGN).cast_signed())
    }
}

impl Key for bool {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        match u8::decode(input)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::new("bool")),
        }
    }
}

impl Key for () {
    fn encode(&self, _: &mut Vec<u8>) {}

    fn decode(_: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(())
    }
}

impl<const N: usize> Key for [u8; N] {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        take(input, "byte array")
    }
}

/// A zero byte inside is followed by this, so that it sorts above the end.
const ESCAPED_ZERO: [u8; 2] = [0, 0xff];
/// What ends a string of bytes: below every continuation.
const END: [u8; 2] = [0, 0];

fn encode_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len() + END.len());
    for (index, part) in bytes.split(|byte| *byte == 0).enumerate() {
        if index > 0 {
            out.extend_from_slice(&ESCAPED_ZERO);
        }
        out.extend_from_slice(part);
    }
    out.extend_from_slice(&END);
}

fn decode_bytes(input: &mut &[u8]) -> Result<Vec<u8>, DecodeError> {
    let unfinished = || DecodeError::new("a string without end");
    let mut out = Vec::new();
    loop {
        let zero = input
            .iter()
            .position(|byte| *byte == 0)
            .ok_or_else(unfinished)?;
        let (part, rest) = input.split_at_checked(zero).ok_or_else(unfinished)?;
        out.extend_from_slice(part);
        let (marker, rest) = rest.split_first_chunk::<2>().ok_or_else(unfinished)?;
        *input = rest;
        match *marker {
            END => return Ok(out),
            ESCAPED_ZERO => out.push(0),
            _ => return Err(DecodeError::new("an escape in a string")),
        }
    }
}

impl Key for Vec<u8> {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_bytes(self, out);
    }

    fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        decode_bytes(input)
    }
}

impl Key for String {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_bytes(self.as_bytes(), out);
    }

    fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        String::from_utf8(decode_bytes(input)?)
            .map_err(|_| DecodeError::new("a string that is not UTF-8"))
    }
}
