//! A message's protobuf as JSON, as protobuf's own mapping writes it: names in lowerCamelCase, bytes in base64, 64-bit
//! numbers as texts, enumerations by name, what is not set left out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::ser::{
    Error as _, Impossible, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeTuple,
    SerializeTupleStruct, Serializer,
};
use serde_json::{Map, Value};

type Error = serde_json::Error;

/// The JSON of an encoded message; `None` for bytes that are none.
pub fn raw_json(bytes: &[u8]) -> Option<Value> {
    let message = waproto::codec::message_decode(bytes).ok()?;
    match message.serialize(Json).ok()? {
        Part::Value(value) => Some(value),
        _ => None,
    }
}

/// What a piece of the message becomes.
enum Part {
    Value(Value),
    /// Not set.
    Nothing,
    /// A byte of a bytes field: protobuf has no numbers of that size.
    Byte(u8),
    /// The set member of a oneof, which stands among its neighbours.
    Member(String, Value),
}

impl Part {
    fn value(self) -> Value {
        match self {
            Self::Value(value) => value,
            Self::Nothing => Value::Null,
            Self::Byte(byte) => byte.into(),
            Self::Member(name, value) => Value::Object(Map::from_iter([(name, value)])),
        }
    }
}

/// `image_message` and `ImageMessage` are `imageMessage`.
fn camel(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    let mut upper = false;
    for (at, c) in name.char_indices() {
        match c {
            '_' => upper = true,
            _ if at == 0 => camel.push(c.to_ascii_lowercase()),
            _ => {
                camel.push(if upper { c.to_ascii_uppercase() } else { c });
                upper = false;
            }
        }
    }
    camel
}

struct Json;

macro_rules! plain {
    ($($method:ident: $from:ty),+) => {
        $(fn $method(self, value: $from) -> Result<Part, Error> { Ok(Part::Value(value.into())) })+
    };
}

macro_rules! wide {
    ($($method:ident: $from:ty),+) => {
        $(fn $method(self, value: $from) -> Result<Part, Error> { Ok(Part::Value(value.to_string().into())) })+
    };
}

impl Serializer for Json {
    type Ok = Part;
    type Error = Error;
    type SerializeSeq = List;
    type SerializeTuple = List;
    type SerializeTupleStruct = List;
    type SerializeTupleVariant = Impossible<Part, Error>;
    type SerializeMap = Members;
    type SerializeStruct = Members;
    type SerializeStructVariant = Impossible<Part, Error>;

    plain!(serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_u16: u16);
    plain!(serialize_u32: u32, serialize_f32: f32, serialize_f64: f64, serialize_str: &str);
    wide!(serialize_i64: i64, serialize_u64: u64, serialize_char: char);

    fn serialize_u8(self, byte: u8) -> Result<Part, Error> {
        Ok(Part::Byte(byte))
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<Part, Error> {
        Ok(Part::Value(STANDARD.encode(bytes).into()))
    }

    fn serialize_none(self) -> Result<Part, Error> {
        Ok(Part::Nothing)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Part, Error> {
        // bytes that are set are there, also when there are none of them
        match value.serialize(Self)? {
            Part::Nothing => Ok(Part::Value("".into())),
            part => Ok(part),
        }
    }

    fn serialize_unit(self) -> Result<Part, Error> {
        Ok(Part::Nothing)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Part, Error> {
        Ok(Part::Nothing)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<Part, Error> {
        Ok(Part::Value(variant.into()))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<Part, Error> {
        value.serialize(Self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Part, Error> {
        Ok(Part::Member(camel(variant), value.serialize(Self)?.value()))
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<List, Error> {
        Ok(List { values: Vec::new(), bytes: Vec::with_capacity(length.unwrap_or_default()) })
    }

    fn serialize_tuple(self, length: usize) -> Result<List, Error> {
        self.serialize_seq(Some(length))
    }

    fn serialize_tuple_struct(self, _: &'static str, length: usize) -> Result<List, Error> {
        self.serialize_seq(Some(length))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Error> {
        Err(Error::custom("messages have no such variants"))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Members, Error> {
        Ok(Members::default())
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Members, Error> {
        Ok(Members::default())
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Error> {
        Err(Error::custom("messages have no such variants"))
    }
}

/// A repeated field, or bytes.
struct List {
    values: Vec<Value>,
    bytes: Vec<u8>,
}

impl List {
    fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        match value.serialize(Json)? {
            Part::Byte(byte) => self.bytes.push(byte),
            part => self.values.push(part.value()),
        }
        Ok(())
    }

    fn finish(self) -> Part {
        match (self.values.is_empty(), self.bytes.is_empty()) {
            (true, true) => Part::Nothing,
            (true, false) => Part::Value(STANDARD.encode(self.bytes).into()),
            _ => Part::Value(Value::Array(self.values)),
        }
    }
}

impl SerializeSeq for List {
    type Ok = Part;
    type Error = Error;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.push(value)
    }
    fn end(self) -> Result<Part, Error> {
        Ok(self.finish())
    }
}

impl SerializeTuple for List {
    type Ok = Part;
    type Error = Error;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.push(value)
    }
    fn end(self) -> Result<Part, Error> {
        Ok(self.finish())
    }
}

impl SerializeTupleStruct for List {
    type Ok = Part;
    type Error = Error;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.push(value)
    }
    fn end(self) -> Result<Part, Error> {
        Ok(self.finish())
    }
}

/// A message, or a map.
#[derive(Default)]
struct Members {
    members: Map<String, Value>,
    key: String,
}

impl Members {
    fn put(&mut self, name: String, part: Part) {
        match part {
            Part::Nothing => {}
            Part::Member(name, value) => {
                self.members.insert(name, value);
            }
            part => {
                self.members.insert(name, part.value());
            }
        }
    }
}

impl SerializeStruct for Members {
    type Ok = Part;
    type Error = Error;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Error> {
        let part = value.serialize(Json)?;
        self.put(camel(name), part);
        Ok(())
    }
    fn end(self) -> Result<Part, Error> {
        Ok(Part::Value(Value::Object(self.members)))
    }
}

impl SerializeMap for Members {
    type Ok = Part;
    type Error = Error;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.key = match key.serialize(Json)?.value() {
            Value::String(text) => text,
            other => other.to_string(),
        };
        Ok(())
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        let (part, key) = (value.serialize(Json)?, std::mem::take(&mut self.key));
        self.put(key, part);
        Ok(())
    }
    fn end(self) -> Result<Part, Error> {
        Ok(Part::Value(Value::Object(self.members)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use buffa::MessageField;
    use serde_json::json;
    use waproto::whatsapp as wa;

    fn json_of(message: &wa::Message) -> Value {
        raw_json(&waproto::codec::message_to_vec(message)).unwrap()
    }

    #[test]
    fn it_is_protobufs_own_json() {
        assert_eq!(
            json_of(&wa::Message { conversation: Some("hi".into()), ..Default::default() }),
            json!({"conversation": "hi"})
        );
        let image = wa::message::ImageMessage {
            caption: Some("look".into()),
            file_length: Some(5_000_000_000),
            height: Some(7),
            media_key: Some(vec![1, 2, 255]),
            scan_lengths: vec![3, 4],
            file_sha256: Some(vec![]),
            ..Default::default()
        };
        let protocol = wa::message::ProtocolMessage {
            r#type: Some(wa::message::protocol_message::Type::MESSAGE_EDIT),
            ..Default::default()
        };
        let message = wa::Message {
            image_message: MessageField::some(image),
            protocol_message: MessageField::some(protocol),
            ..Default::default()
        };
        assert_eq!(
            json_of(&message),
            json!({
                "imageMessage": {
                    "caption": "look", "fileLength": "5000000000", "height": 7, "mediaKey": "AQL/", "scanLengths": [3, 4],
                    "fileSha256": ""
                },
                "protocolMessage": {"type": "MESSAGE_EDIT"}
            })
        );
    }

    #[test]
    fn a_oneofs_member_stands_among_its_neighbours() {
        let flow =
            wa::message::interactive_message::NativeFlowMessage { message_version: Some(3), ..Default::default() };
        let interactive =
            wa::message::InteractiveMessage { interactive_message: Some(flow.into()), ..Default::default() };
        let message = wa::Message { interactive_message: MessageField::some(interactive), ..Default::default() };
        assert_eq!(json_of(&message), json!({"interactiveMessage": {"nativeFlowMessage": {"messageVersion": 3}}}));
    }

    #[test]
    fn names() {
        assert_eq!(camel("jpeg_thumbnail"), "jpegThumbnail");
        assert_eq!(camel("NativeFlowMessage"), "nativeFlowMessage");
        assert!(raw_json(b"\xff\xff").is_none());
    }
}
