//! Tuples as keys: their parts one after the other.

use super::Key;
use crate::DecodeError;

macro_rules! tuple {
    ($($type:ident $index:tt),*) => {
        impl<$($type: Key),*> Key for ($($type,)*) {
            fn encode(&self, out: &mut Vec<u8>) {
                $(self.$index.encode(out);)*
            }

            fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
                Ok(($($type::decode(input)?,)*))
            }
        }
    };
}

tuple!(A 0);
tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);
tuple!(A 0, B 1, C 2, D 3, E 4);
