//! The one declaration of a table: keys, types, defaults, bounds and documentation stand once, and the struct,
//! its reader and its schema all come from there.

use serde_json::{Value as Json, json};

use super::problem::{Located, Place};
use super::read::{Fields, Node, Reader, Value};
use super::schema::Key;

/// Turns what is written into what is kept, where these differ: a [`super::word::Size`] into a number of bytes.
pub trait Yields<T> {
    fn yields(self) -> T;
}

impl<T, W: Yields<T>> Yields<Option<T>> for Option<W> {
    fn yields(self) -> Option<T> {
        self.map(W::yields)
    }
}

impl<T, W: Yields<T>> Yields<Located<T>> for Located<W> {
    fn yields(self) -> Located<T> {
        Located {
            place: self.place,
            value: self.value.yields(),
        }
    }
}

/// Keys that make one field together, in the table of that field: `upstream`, `redirect` or `respond`.
pub trait Group: Sized {
    const KEYS: &'static [&'static str];
    fn read_group(fields: &Fields<'_>, table: &str, reader: &mut Reader<'_>) -> Option<Self>;
    fn group_keys() -> Vec<Key>;
}

/// Where a table begins, and whether all in it was right. Equal to every other.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    pub place: Place,
    /// False when a key of this table was wrong and its default stands in.
    pub sound: bool,
}

impl PartialEq for Origin {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Declares the tables of the file.
///
/// ```text
/// spec! {
///     /// What the table is.
///     pub struct BackendSpec in "a backend", or address {   // a bare string stands for { address = … }
///         /// What the key means, its unit.
///         weight: u32 = 1, within 1..=1000;                 // default and bounds, as TOML
///         max_body: u64 as Size = "50 MiB";                 // written as a Size, kept as a u64
///         ca: Option<FilePath>;                             // optional, without default
///         address: BackendAddress;                          // required
///         upstreams["upstream"]: …                          // key and field are named differently
///         list: Vec<T>, entries 1..=64;                     // bounds of the length
///     }
///     with action: ActionSpec                               // a group of keys that make one field
/// }
/// ```
macro_rules! spec {
    ($(
        $(#[doc = $about:literal])+
        $vis:vis struct $name:ident in $table:literal $(, or $short:ident)? {
            $(
                $(#[doc = $doc:literal])+
                $field:ident $([$renamed:literal])?: $ty:ty $(as $written:ty)? $(= $default:tt)?
                    $(, $limit:ident $least:literal ..= $most:literal)?;
            )*
        }
        $(with $(#[doc = $group_doc:literal])+ $group:ident: $group_ty:ty)?
    )+) => {$(
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq)]
        $vis struct $name {
            /// Where the table begins, and whether all in it was right.
            pub origin: $crate::config::declare::Origin,
            $( $(#[doc = $doc])+ pub $field: $ty, )*
            $( $(#[doc = $group_doc])+ pub $group: $group_ty, )?
        }

        impl $name {
            /// The keys of this table itself.
            pub(crate) const OWN_KEYS: &'static [&'static str] =
                &[$( $crate::config::declare::key!($field $($renamed)?), )*];

            pub(crate) fn read_fields(
                fields: &$crate::config::read::Fields<'_>,
                table: &str,
                reader: &mut $crate::config::read::Reader<'_>,
            ) -> Option<Self> {
                $(
                    let $field = reader.field::<$crate::config::declare::written!($ty $(, $written)?)>(
                        fields,
                        table,
                        $crate::config::declare::key!($field $($renamed)?),
                        $crate::config::declare::text!($($default)?),
                        |_node, _value, _reader| $crate::config::declare::limit!(_node, _value, _reader $(, $limit)?),
                        $crate::config::declare::bounds!($($least, $most)?),
                    );
                )*
                $( let $group = <$group_ty as $crate::config::declare::Group>::read_group(fields, table, reader); )?
                Some(Self {
                    origin: $crate::config::declare::Origin {
                        place: fields.place,
                        sound: reader.is_sound(fields),
                    },
                    $( $field: $crate::config::declare::kept!($field? $(, $written)?), )*
                    $( $group: $group?, )?
                })
            }

            pub(super) fn keys() -> Vec<$crate::config::schema::Key> {
                let keys = vec![$(
                    $crate::config::schema::key_schema::<$crate::config::declare::written!($ty $(, $written)?)>(
                        $crate::config::declare::key!($field $($renamed)?),
                        concat!($($doc),+),
                        $crate::config::declare::text!($($default)?),
                        stringify!($($limit)?),
                        $crate::config::declare::bounds!($($least, $most)?),
                    ),
                )*];
                $( let keys = [keys, <$group_ty as $crate::config::declare::Group>::group_keys()].concat(); )?
                keys
            }
        }

        impl $crate::config::problem::Positioned for $name {
            fn place(&self) -> $crate::config::problem::Place {
                self.origin.place
            }
        }

        impl $crate::config::read::Value for $name {
            fn expects() -> String {
                $crate::config::declare::expects!($table $(, $short)?).to_owned()
            }

            fn read(
                node: $crate::config::read::Node<'_>,
                reader: &mut $crate::config::read::Reader<'_>,
            ) -> Option<Self> {
                let short = $crate::config::declare::short!($($short)?);
                let mut fields = reader.fields(node, short, &Self::expects())?;
                let known = [Self::OWN_KEYS, $( <$group_ty as $crate::config::declare::Group>::KEYS )?].concat();
                reader.refuse_unknown(&mut fields, $table, &known);
                Self::read_fields(&fields, $table, reader)
            }

            fn schema() -> serde_json::Value {
                let about = concat!($($about),+);
                $crate::config::schema::table_schema(about, Self::keys(), $crate::config::declare::short!($($short)?))
            }
        }
    )+};
}
pub(crate) use spec;

macro_rules! key {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $renamed:literal) => {
        $renamed
    };
}
pub(crate) use key;

macro_rules! text {
    () => {
        None
    };
    ($default:tt) => {
        Some(stringify!($default))
    };
}
pub(crate) use text;

macro_rules! bounds {
    () => {
        None
    };
    ($least:literal, $most:literal) => {
        Some((stringify!($least), stringify!($most)))
    };
}
pub(crate) use bounds;

macro_rules! written {
    ($ty:ty) => {
        $ty
    };
    ($ty:ty, $written:ty) => {
        $written
    };
}
pub(crate) use written;

macro_rules! kept {
    ($value:expr) => {
        $value
    };
    ($value:expr, $written:ty) => {
        $crate::config::declare::Yields::yields($value)
    };
}
pub(crate) use kept;

macro_rules! limit {
    ($node:ident, $value:ident, $reader:ident) => {
        true
    };
    ($node:ident, $value:ident, $reader:ident, within) => {
        $reader.within($node, $value)
    };
    ($node:ident, $value:ident, $reader:ident, entries) => {
        $reader.counted($node)
    };
}
pub(crate) use limit;

macro_rules! short {
    () => {
        None
    };
    ($short:ident) => {
        Some(stringify!($short))
    };
}
pub(crate) use short;

macro_rules! expects {
    ($table:literal) => {
        if $table.starts_with("[[") {
            $table
        } else {
            "a table"
        }
    };
    ($table:literal, $short:ident) => {
        concat!(
            $table,
            ": its ",
            stringify!($short),
            " as a string, or a table"
        )
    };
}
pub(crate) use expects;

/// A value that is `false`, or a `T`: `tls = false`, `hsts = "730d"`.
#[derive(Debug, Clone, PartialEq)]
pub enum OrFalse<T> {
    False,
    Is(T),
}

impl<T> Yields<Option<T>> for OrFalse<T> {
    fn yields(self) -> Option<T> {
        match self {
            Self::False => None,
            Self::Is(value) => Some(value),
        }
    }
}

impl<T: Value> Value for OrFalse<T> {
    fn expects() -> String {
        format!("false or {}", T::expects())
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match node.as_bool() {
            Some(false) => Some(Self::False),
            Some(true) => {
                reader.mismatch(node, &Self::expects());
                None
            }
            None => T::read(node, reader).map(Self::Is),
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "const": false }, T::schema()] })
    }
}
