//! Text as web servers log it: what compression is for.

use std::fmt::Write as _;

/// `length` bytes of log lines, the same each time. They shrink to about an eighth.
pub(crate) fn log_lines(length: usize) -> Vec<u8> {
    let mut text = String::with_capacity(length + 256);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    while text.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let (status, path) = ([200, 200, 200, 304, 404][(state % 5) as usize], state >> 48);
        let (host, second, size) = (state >> 8 & 0xff, state >> 16 & 0x3f, state >> 24 & 0xffff);
        let _ = writeln!(
            text,
            "10.0.{host}.7 - - [21/Nov/2026:22:14:{second:02} +0000] \"GET /api/v1/items/{path} HTTP/1.1\" {status} {size} \
             \"-\" \"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36\""
        );
    }
    let mut bytes = text.into_bytes();
    bytes.truncate(length);
    bytes
}
