//! Reading and writing of single values, on the `thrift` crate's binary protocol over memory.
//!
//! Everything read is bounded: by the length of the message (strings and containers), by [`MAX_ELEMENTS`] and by the depth
//! limit of the protocol. So hostile bytes give an error, never a panic, a hang or more memory than a real answer needs.

use std::collections::BTreeMap;

use thrift::TConfiguration;
use thrift::protocol::{
    TBinaryInputProtocol, TBinaryOutputProtocol, TFieldIdentifier, TInputProtocol, TListIdentifier, TMapIdentifier,
    TOutputProtocol, TSetIdentifier, TStructIdentifier, TType,
};

use super::Error;

/// Most elements of all containers of one message together. A job of 4,000 tasks, the scheduler's limit, has about 100,000.
pub const MAX_ELEMENTS: usize = 300_000;

/// A message being read.
pub(super) struct Reader<'a> {
    pub(super) input: TBinaryInputProtocol<&'a [u8]>,
    elements_left: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        let config = TConfiguration::builder()
            .max_frame_size(Some(bytes.len()))
            .max_message_size(Some(bytes.len()))
            .max_string_size(Some(bytes.len()))
            .max_recursion_depth(Some(64))
            .build()
            .expect("frame and message limit are equal");
        Reader { input: TBinaryInputProtocol::with_config(bytes, false, config), elements_left: MAX_ELEMENTS }
    }

    /// Takes `size` elements, which the protocol has already held against the message's length, from the allowance.
    fn take(&mut self, size: i32) -> Result<usize, Error> {
        let size = usize::try_from(size).map_err(|_| Error::TooManyElements)?;
        self.elements_left = self.elements_left.checked_sub(size).ok_or(Error::TooManyElements)?;
        Ok(size)
    }
}

/// A message being written.
pub(super) type Writer = TBinaryOutputProtocol<Vec<u8>>;

pub(super) fn writer() -> Writer {
    TBinaryOutputProtocol::new(Vec::new(), true)
}

/// A value with one representation on the wire.
pub(super) trait Wire: Sized {
    const TYPE: TType;
    fn read(reader: &mut Reader<'_>) -> Result<Self, Error>;
    fn write(&self, writer: &mut Writer) -> Result<(), Error>;
}

macro_rules! wire_value {
    ($type:ty, $wire:ident, $read:ident, $write:ident) => {
        impl Wire for $type {
            const TYPE: TType = TType::$wire;
            fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
                Ok(reader.input.$read()?)
            }
            fn write(&self, writer: &mut Writer) -> Result<(), Error> {
                Ok(writer.$write(self.to_owned())?)
            }
        }
    };
}

wire_value!(bool, Bool, read_bool, write_bool);
wire_value!(i32, I32, read_i32, write_i32);
wire_value!(i64, I64, read_i64, write_i64);
wire_value!(f64, Double, read_double, write_double);

impl Wire for String {
    const TYPE: TType = TType::String;
    fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(reader.input.read_string()?)
    }
    fn write(&self, writer: &mut Writer) -> Result<(), Error> {
        Ok(writer.write_string(self)?)
    }
}

impl<T: Wire> Wire for Box<T> {
    const TYPE: TType = T::TYPE;
    fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        T::read(reader).map(Box::new)
    }
    fn write(&self, writer: &mut Writer) -> Result<(), Error> {
        self.as_ref().write(writer)
    }
}

/// How a struct's field lies on the wire: always there, there when set, a list or a set or a map.
pub(super) trait Slot<F> {
    const TYPE: TType;
    fn is_present(_field: &F) -> bool {
        true
    }
    fn read(reader: &mut Reader<'_>) -> Result<F, Error>;
    fn write(field: &F, writer: &mut Writer) -> Result<(), Error>;
}

/// A value, always written.
pub(super) struct Plain;
/// A list, always written.
pub(super) struct List;
/// A set, always written; it keeps its order.
pub(super) struct Set;
/// A set that is left out when empty.
pub(super) struct Sparse;
/// A map, always written.
pub(super) struct Map;
/// Any of these in an `Option`, left out when `None`.
pub(super) struct Maybe<S>(S);

impl<T: Wire> Slot<T> for Plain {
    const TYPE: TType = T::TYPE;
    fn read(reader: &mut Reader<'_>) -> Result<T, Error> {
        T::read(reader)
    }
    fn write(field: &T, writer: &mut Writer) -> Result<(), Error> {
        field.write(writer)
    }
}

impl<F, S: Slot<F>> Slot<Option<F>> for Maybe<S> {
    const TYPE: TType = S::TYPE;
    fn is_present(field: &Option<F>) -> bool {
        field.is_some()
    }
    fn read(reader: &mut Reader<'_>) -> Result<Option<F>, Error> {
        S::read(reader).map(Some)
    }
    fn write(field: &Option<F>, writer: &mut Writer) -> Result<(), Error> {
        field.as_ref().map_or(Ok(()), |value| S::write(value, writer))
    }
}

impl<T: Wire> Slot<Vec<T>> for List {
    const TYPE: TType = TType::List;
    fn read(reader: &mut Reader<'_>) -> Result<Vec<T>, Error> {
        let list = reader.input.read_list_begin()?;
        read_elements(reader, list.element_type, list.size)
    }
    fn write(field: &Vec<T>, writer: &mut Writer) -> Result<(), Error> {
        writer.write_list_begin(&TListIdentifier::new(T::TYPE, size_of(field.len())?))?;
        field.iter().try_for_each(|element| element.write(writer))
    }
}

impl<T: Wire> Slot<Vec<T>> for Set {
    const TYPE: TType = TType::Set;
    fn read(reader: &mut Reader<'_>) -> Result<Vec<T>, Error> {
        let set = reader.input.read_set_begin()?;
        read_elements(reader, set.element_type, set.size)
    }
    fn write(field: &Vec<T>, writer: &mut Writer) -> Result<(), Error> {
        writer.write_set_begin(&TSetIdentifier::new(T::TYPE, size_of(field.len())?))?;
        field.iter().try_for_each(|element| element.write(writer))
    }
}

impl<T: Wire> Slot<Vec<T>> for Sparse {
    const TYPE: TType = TType::Set;
    fn is_present(field: &Vec<T>) -> bool {
        !field.is_empty()
    }
    fn read(reader: &mut Reader<'_>) -> Result<Vec<T>, Error> {
        Set::read(reader)
    }
    fn write(field: &Vec<T>, writer: &mut Writer) -> Result<(), Error> {
        Set::write(field, writer)
    }
}

impl<K: Wire + Ord, V: Wire> Slot<BTreeMap<K, V>> for Map {
    const TYPE: TType = TType::Map;
    fn read(reader: &mut Reader<'_>) -> Result<BTreeMap<K, V>, Error> {
        let map = reader.input.read_map_begin()?;
        let size = reader.take(map.size)?;
        if size > 0 && (map.key_type, map.value_type) != (Some(K::TYPE), Some(V::TYPE)) {
            return Err(Error::ElementType);
        }
        (0..size).map(|_| Ok((K::read(reader)?, V::read(reader)?))).collect()
    }
    fn write(field: &BTreeMap<K, V>, writer: &mut Writer) -> Result<(), Error> {
        writer.write_map_begin(&TMapIdentifier::new(K::TYPE, V::TYPE, size_of(field.len())?))?;
        field.iter().try_for_each(|(key, value)| {
            key.write(writer)?;
            value.write(writer)
        })
    }
}

fn read_elements<T: Wire>(reader: &mut Reader<'_>, element_type: TType, size: i32) -> Result<Vec<T>, Error> {
    let size = reader.take(size)?;
    if size > 0 && element_type != T::TYPE {
        return Err(Error::ElementType);
    }
    (0..size).map(|_| T::read(reader)).collect()
}

fn size_of(len: usize) -> Result<i32, Error> {
    i32::try_from(len).map_err(|_| Error::TooManyElements)
}

/// Reads a struct: `field` reads the field with this id and type and says `true`, or says `false` to have it skipped.
pub(super) fn read_fields(
    reader: &mut Reader<'_>,
    mut field: impl FnMut(&mut Reader<'_>, i16, TType) -> Result<bool, Error>,
) -> Result<(), Error> {
    reader.input.read_struct_begin()?;
    loop {
        let found = reader.input.read_field_begin()?;
        if found.field_type == TType::Stop {
            break;
        }
        if !field(reader, found.id.unwrap_or_default(), found.field_type)? {
            reader.input.skip(found.field_type)?;
        }
    }
    Ok(reader.input.read_struct_end()?)
}

/// Writes a struct whose fields `fields` writes.
pub(super) fn write_fields(writer: &mut Writer, fields: impl FnOnce(&mut Writer) -> Result<(), Error>) -> Result<(), Error> {
    writer.write_struct_begin(&TStructIdentifier::new(""))?;
    fields(writer)?;
    writer.write_field_stop()?;
    Ok(writer.write_struct_end()?)
}

/// Writes one field of a struct, unless its slot leaves it out.
pub(super) fn write_field<F, S: Slot<F>>(writer: &mut Writer, id: i16, field: &F) -> Result<(), Error> {
    if S::is_present(field) {
        writer.write_field_begin(&TFieldIdentifier::new("", S::TYPE, id))?;
        S::write(field, writer)?;
        writer.write_field_end()?;
    }
    Ok(())
}

/// States the fields of a struct as the IDL does: `id => field: slot`. A field with the right id but another type is skipped
/// like an unknown one, as the scheduler itself does.
macro_rules! wire_struct {
    ($name:ident { $($id:literal => $field:ident: $slot:ty,)* }) => {
        impl Wire for $name {
            const TYPE: TType = TType::Struct;
            fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
                let mut value = $name::default();
                read_fields(reader, |reader, id, found| {
                    match id {
                        $($id if found == slot_type::<_, $slot>(&value.$field) => {
                            value.$field = <$slot as Slot<_>>::read(reader)?;
                        })*
                        _ => return Ok(false),
                    }
                    Ok(true)
                })?;
                Ok(value)
            }
            fn write(&self, writer: &mut Writer) -> Result<(), Error> {
                let $name { $($field),* } = self;
                write_fields(writer, |writer| {
                    $(write_field::<_, $slot>(writer, $id, $field)?;)*
                    Ok(())
                })
            }
        }
    };
}

/// States the variants of a union: `id => variant: slot`. Without a known field it reads as `Unknown`, which cannot be written.
macro_rules! wire_union {
    ($name:ident { $($id:literal => $variant:ident: $slot:ty,)+ }) => {
        impl Wire for $name {
            const TYPE: TType = TType::Struct;
            fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
                let mut value = $name::Unknown(0);
                read_fields(reader, |reader, id, found| {
                    match id {
                        $($id if found == variant_type::<_, _, $slot>($name::$variant) => {
                            value = $name::$variant(<$slot as Slot<_>>::read(reader)?);
                        })+
                        _ => {
                            value = $name::Unknown(id);
                            return Ok(false);
                        }
                    }
                    Ok(true)
                })?;
                Ok(value)
            }
            fn write(&self, writer: &mut Writer) -> Result<(), Error> {
                write_fields(writer, |writer| match self {
                    $($name::$variant(value) => write_field::<_, $slot>(writer, $id, value),)+
                    $name::Unknown(field) => Err(Error::Unwritable { union: stringify!($name), field: *field }),
                })
            }
        }
    };
}

/// The type of a slot for the field at hand; lets the macros name a slot without naming the field's type.
pub(super) fn slot_type<F, S: Slot<F>>(_field: &F) -> TType {
    S::TYPE
}

/// The type of a slot for the variant at hand.
pub(super) fn variant_type<F, U, S: Slot<F>>(_variant: fn(F) -> U) -> TType {
    S::TYPE
}

pub(super) use {wire_struct, wire_union};
