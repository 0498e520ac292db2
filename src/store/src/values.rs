//! Values as bytes.
//!
//! Row types derive serde's traits and say `impl_value!(Row);`, which stores them as postcard: compact, and not self
//! describing, so a changed row type needs a migration. Types whose bytes are shared rather than copied (an event and
//! its PDU) implement [`Value`] by hand.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::{DecodeError, Position};

/// Something that can be a value.
pub trait Value: Sized {
    /// The stored form.
    fn to_bytes(&self) -> Vec<u8>;

    /// Reads the stored form.
    fn from_bytes(bytes: Bytes) -> Result<Self, DecodeError>;
}

/// Implements [`Value`] for types with serde's traits, stored as postcard.
#[macro_export]
macro_rules! impl_value {
    ($($type:ty),* $(,)?) => {$(
        impl $crate::Value for $type {
            fn to_bytes(&self) -> Vec<u8> {
                $crate::private::to_postcard(self)
            }

            fn from_bytes(bytes: $crate::private::Bytes) -> Result<Self, $crate::DecodeError> {
                $crate::private::from_postcard(&bytes)
            }
        }
    )*};
}

/// The postcard form of a value. Row types have sized sequences only, so this cannot fail for them.
pub fn to_postcard<T: Serialize>(value: &T) -> Vec<u8> {
    match postcard::to_allocvec(value) {
        Ok(bytes) => bytes,
        Err(error) => unreachable!("{} cannot be a row: {error}", std::any::type_name::<T>()),
    }
}

/// Reads a value from its postcard form; bytes left over are an error.
pub fn from_postcard<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(DecodeError::new(format!(
            "{}: bytes left over",
            std::any::type_name::<T>()
        ))),
        Err(error) => Err(DecodeError::new(format!(
            "{}: {error}",
            std::any::type_name::<T>()
        ))),
    }
}

impl_value!(bool, u8, u16, u32);

impl Value for u64 {
    fn to_bytes(&self) -> Vec<u8> {
        self.to_le_bytes().to_vec()
    }

    fn from_bytes(bytes: Bytes) -> Result<Self, DecodeError> {
        Ok(Self::from_le_bytes(eight(&bytes)?))
    }
}

/// Eight bytes, little endian: what [`crate::Batch::add`] counts in.
impl Value for i64 {
    fn to_bytes(&self) -> Vec<u8> {
        self.to_le_bytes().to_vec()
    }

    fn from_bytes(bytes: Bytes) -> Result<Self, DecodeError> {
        Ok(Self::from_le_bytes(eight(&bytes)?))
    }
}

fn eight(bytes: &Bytes) -> Result<[u8; 8], DecodeError> {
    bytes
        .as_ref()
        .try_into()
        .map_err(|_| DecodeError::new("a number that is not eight bytes"))
}

impl Value for Position {
    fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes()
    }

    fn from_bytes(bytes: Bytes) -> Result<Self, DecodeError> {
        u64::from_bytes(bytes).map(Position)
    }
}

impl Value for () {
    fn to_bytes(&self) -> Vec<u8> {
        Vec::new()
    }

    fn from_bytes(bytes: Bytes) -> Result<Self, DecodeError> {
        if bytes.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::new("an empty value"))
        }
    }
}

/// As it is; shares the engine's buffer where the engine has one.
impl Value for Bytes {
    fn to_bytes(&self) -> Vec<u8> {
        self.to_vec()
    }

    fn from_bytes(bytes: Bytes) -> Result<Self, DecodeError> {
        Ok(bytes)
    }
}

impl Value for String {
    fn to_bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    fn from_bytes(bytes: Bytes) -> Result<Self, DecodeError> {
        String::from_utf8(bytes.into()).map_err(|_| DecodeError::new("a string that is not UTF-8"))
    }
}

impl<T: Serialize + DeserializeOwned> Value for Vec<T> {
    fn to_bytes(&self) -> Vec<u8> {
        to_postcard(self)
    }

    fn from_bytes(bytes: Bytes) -> Result<Self, DecodeError> {
        from_postcard(&bytes)
    }
}

macro_rules! tuple {
    ($($type:ident),*) => {
        impl<$($type: Serialize + DeserializeOwned),*> Value for ($($type,)*) {
            fn to_bytes(&self) -> Vec<u8> {
                to_postcard(self)
            }

            fn from_bytes(bytes: Bytes) -> Result<Self, DecodeError> {
                from_postcard(&bytes)
            }
        }
    };
}
tuple!(A, B);
tuple!(A, B, C);
tuple!(A, B, C, D);
tuple!(A, B, C, D, E);
