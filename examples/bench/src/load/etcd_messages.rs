//! The few messages of etcd's v3 API that the load needs, written by hand from its published numbering
//! (`rpc.proto`, `kv.proto`), so that the build needs no protoc. Fields that are neither set nor read are
//! omitted: protobuf skips unknown fields.

use bytes::Bytes;

/// `etcdserverpb.PutRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) value: Bytes,
}

/// `etcdserverpb.RangeRequest`. `serializable` false means linearizable.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) key: Bytes,
    #[prost(bool, tag = "7")]
    pub(crate) serializable: bool,
}

/// `etcdserverpb.RangeResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    pub(crate) kvs: Vec<KeyValue>,
}

/// `mvccpb.KeyValue`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct KeyValue {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) key: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    pub(crate) value: Bytes,
}

/// `etcdserverpb.StatusRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StatusRequest {}

/// `etcdserverpb.StatusResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
    #[prost(string, tag = "2")]
    pub(crate) version: String,
    /// The leader as known to this member; 0 if it knows none.
    #[prost(uint64, tag = "4")]
    pub(crate) leader: u64,
}

/// `etcdserverpb.ResponseHeader`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    pub(crate) member_id: u64,
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    // Tag byte = field number << 3 | wire type (0 varint, 2 length-delimited); checked by hand against etcd's
    // rpc.proto.

    #[test]
    fn requests_encode_to_the_published_bytes() {
        let put = PutRequest { key: Bytes::from_static(b"k1"), value: Bytes::from_static(b"abc") };
        assert_eq!(put.encode_to_vec(), b"\x0a\x02k1\x12\x03abc");
        let get = RangeRequest { key: Bytes::from_static(b"k1"), serializable: false };
        assert_eq!(get.encode_to_vec(), b"\x0a\x02k1");
        let local = RangeRequest { key: Bytes::from_static(b"k1"), serializable: true };
        assert_eq!(local.encode_to_vec(), b"\x0a\x02k1\x38\x01");
        assert_eq!(StatusRequest {}.encode_to_vec(), b"");
    }

    #[test]
    fn a_value_of_256_bytes_has_a_length_of_two_bytes() {
        let put = PutRequest { key: Bytes::from_static(b"k"), value: Bytes::from(vec![7; 256]) };
        let bytes = put.encode_to_vec();
        assert_eq!(bytes[..6], *b"\x0a\x01k\x12\x80\x02");
        assert_eq!(bytes.len(), 6 + 256);
    }

    #[test]
    fn a_range_response_with_fields_that_we_do_not_know_decodes() {
        let bytes =
            b"\x0a\x06\x08\x01\x10\x02\x18\x03\x12\x10\x0a\x02k1\x10\x04\x18\x05\x20\x06\x2a\x04v256\x20\x01";
        let response = RangeResponse::decode(&bytes[..]).unwrap();
        assert_eq!(
            response.kvs,
            [KeyValue { key: Bytes::from_static(b"k1"), value: Bytes::from_static(b"v256") }]
        );
        assert!(RangeResponse::decode(&bytes[..bytes.len() - 3]).is_err());
    }

    #[test]
    fn a_status_names_member_and_leader() {
        let bytes = b"\x0a\x04\x08\x01\x10\x09\x12\x063.4.23\x18\x80\x80\x01\x20\x09\x28\x07\x30\x02";
        let status = StatusResponse::decode(&bytes[..]).unwrap();
        assert_eq!((status.version.as_str(), status.leader), ("3.4.23", 9));
        assert_eq!(status.header.unwrap().member_id, 9);
    }
}
