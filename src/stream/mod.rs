//! The data channel on a WebSocket, offered as `AsyncRead + AsyncWrite`.

mod service;

pub use service::{
    Denied, Grant, ServiceError, SessionId, SsmService, StartRequest, TargetId, TargetIdError, UpgradeHeaders,
};
pub(crate) use service::{is_presigned, report_stage};
