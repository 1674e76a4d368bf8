//! The corpus of the fuzz targets, on every toolchain and in every run of the tests.

use std::{fs, path::Path};

use crate::inputs;

fn replay(target: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for entry in fs::read_dir(corpus).expect("the corpus is there") {
        run(&fs::read(entry.expect("it can be listed").path()).expect("it can be read"));
        count += 1;
    }
    assert!(count > 0, "no corpus for {target}");
}

#[test]
fn the_corpus_of_messages_decodes_or_fails_in_peace() {
    replay("decode_message", inputs::decode_message);
}

#[test]
fn the_corpus_of_engine_inputs_breaks_nothing() {
    replay("channel_ops", inputs::channel_ops);
}

#[test]
fn the_corpus_of_bodies_is_read_or_refused_in_peace() {
    replay("handshake_json", inputs::handshake_json);
}

#[test]
fn the_corpus_of_sftp_replies_ends_every_request() {
    replay("sftp_reply", inputs::sftp_reply);
}

#[test]
fn the_corpus_of_what_scp_sends_is_received_or_refused_in_peace() {
    replay("scp_sink", inputs::scp_sink);
}

#[test]
fn the_corpus_of_what_scp_answers_is_understood_or_refused_in_peace() {
    replay("scp_source", inputs::scp_source);
}
