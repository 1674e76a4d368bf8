//! Parsers that are nobody's business, for the fuzz targets, and their corpus for the tests.

#[cfg(feature = "cli")]
pub use crate::cli::fuzzing::words;
pub use crate::copy::fuzzing::{glob, journal};
pub use crate::ssh::fuzzing::{key_file, known_hosts};
pub use crate::stream::fuzzing::proxy;

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    fn replay(target: &str, run: fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let inputs: Vec<_> = fs::read_dir(corpus).expect("the corpus is there").collect();
        assert!(!inputs.is_empty(), "no corpus for {target}");
        for input in inputs {
            run(&fs::read(input.expect("it can be listed").path()).expect("it can be read"));
        }
    }

    #[test]
    fn the_corpus_of_known_hosts_and_keys_is_read_or_refused_in_peace() {
        replay("known_hosts", super::known_hosts);
        replay("key_file", super::key_file);
    }

    #[test]
    fn the_corpus_of_patterns_and_journals_is_read_or_refused_in_peace() {
        replay("glob", super::glob);
        replay("journal", super::journal);
    }

    #[test]
    fn the_corpus_of_what_proxies_answer_is_read_or_refused_in_peace() {
        replay("proxy", super::proxy);
    }

    #[cfg(feature = "cli")]
    #[test]
    fn the_corpus_of_words_is_read_or_refused_in_peace() {
        replay("words", super::words);
    }
}
