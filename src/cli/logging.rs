//! What `-v` prints: what is used, stages with their durations, and with `-vv` the crate's own debug events.
//!
//! Events of other crates are not printed, for they may hold tokens; but for the warnings of those that read the AWS
//! configuration.

use std::fmt::{self, Write};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::instrument::{Instrument, Instrumented};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Metadata, Span, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use super::options::LogLevel;
use super::{report, waiting};

const STAGE_TARGET: &str = "ssmssh::stage";
/// What is used, and how it ends: sentences of their own.
const DETAIL_TARGET: &str = "ssmssh::detail";
/// The crates that read the AWS configuration.
const CONFIGURATION_TARGETS: [&str; 2] = ["aws_config", "aws_runtime"];
/// What is waited for from now on.
const WAIT_TARGET: &str = "ssmssh::wait";
/// Names for what is told.
const LABEL_TARGET: &str = "ssmssh::label";

/// Prints from now on what `level` asks for. A second call changes nothing.
pub(crate) fn init(level: LogLevel) {
    let _ = tracing_subscriber::registry().with(Lines { level }).try_init();
}

/// Reports a stage of the commands' own in the form that the library uses.
pub(crate) fn stage(name: &'static str, elapsed: Duration) {
    let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    tracing::info!(target: "ssmssh::stage", stage = name, elapsed_us);
}

/// Tells how long the whole way in took.
pub(crate) fn ready(started: Instant) {
    tracing::info!(target: "ssmssh::detail", "ready after {}", milliseconds(started.elapsed()));
}

/// Puts a name before all that is told about `work`, where several such are under way; `None` where there is only one.
pub(crate) fn labelled<F: Future>(label: Option<String>, work: F) -> Instrumented<F> {
    let span = label.map(|label| tracing::info_span!(target: "ssmssh::label", "label", "{label}"));
    work.instrument(span.unwrap_or_else(Span::none))
}

/// One line on stderr for each event that is wanted.
struct Lines {
    level: LogLevel,
}

impl Lines {
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        if target == WAIT_TARGET {
            return self.level >= LogLevel::Info;
        }
        if target == STAGE_TARGET || target == DETAIL_TARGET {
            return self.level >= LogLevel::Stages;
        }
        let begins =
            |name: &str| target.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
        if CONFIGURATION_TARGETS.into_iter().any(begins) {
            return self.level >= LogLevel::Debug && *metadata.level() <= Level::WARN;
        }
        let ours = begins("ssmssh");
        let most = match self.level {
            LogLevel::Quiet => Level::ERROR,
            LogLevel::Info | LogLevel::Stages => Level::WARN,
            LogLevel::Debug => Level::DEBUG,
        };
        ours && *metadata.level() <= most
    }
}

/// The name of a span.
struct Label(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let is_wanted_label = metadata.target() == LABEL_TARGET && self.level >= LogLevel::Stages;
        is_wanted_label || (metadata.is_event() && self.wants(metadata))
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(Label(fields.text));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if event.metadata().target() == WAIT_TARGET {
            let mut fields = Fields::default();
            event.record(&mut fields);
            return waiting::goes_on(&fields.text);
        }
        report::note(&labelled_line(event, &context));
    }
}

fn labelled_line<S: Subscriber + for<'a> LookupSpan<'a>>(event: &Event<'_>, context: &Context<'_, S>) -> String {
    let mut fields = Fields::default();
    event.record(&mut fields);
    let line = line(event.metadata(), &fields);
    let mut spans = context.event_scope(event).into_iter().flatten();
    let label = spans.find_map(|span| span.extensions().get::<Label>().map(|Label(label)| format!("{label}: ")));
    label.unwrap_or_default() + &line
}

fn line(metadata: &Metadata<'_>, fields: &Fields) -> String {
    if let (STAGE_TARGET, Some(stage), Some(elapsed)) = (metadata.target(), &fields.stage, fields.elapsed) {
        return format!("{stage} {}", milliseconds(elapsed));
    }
    if metadata.target() == DETAIL_TARGET {
        return fields.text.clone();
    }
    match *metadata.level() {
        Level::ERROR => format!("error: {}", fields.sentence()),
        Level::WARN if CONFIGURATION_TARGETS.iter().any(|name| metadata.target().starts_with(name)) => {
            format!("warning: {}: {}", metadata.target(), fields.sentence())
        }
        Level::WARN => format!("warning: {}", fields.sentence()),
        _ => format!("debug: {}: {}", metadata.target(), fields.text),
    }
}

/// Whole milliseconds, with one decimal where there are few.
fn milliseconds(elapsed: Duration) -> String {
    let tenths = elapsed.as_micros() / 100;
    if tenths < 100 { format!("{}.{} ms", tenths / 10, tenths % 10) } else { format!("{} ms", tenths / 10) }
}

#[derive(Debug, Default)]
struct Fields {
    /// The message, then the other fields as `name=value`.
    text: String,
    message: String,
    /// What it is about.
    path: Option<String>,
    /// Why, and whatever else there is to say.
    reasons: Vec<String>,
    stage: Option<String>,
    elapsed: Option<Duration>,
}

impl Fields {
    /// For people: what it is about, the message, and why, without the names of the fields.
    fn sentence(&self) -> String {
        let parts = self.path.iter().chain([&self.message]).chain(&self.reasons);
        parts.map(String::as_str).collect::<Vec<_>>().join(": ")
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "path" => self.path = Some(format!("{value:?}")),
            _ => self.reasons.push(format!("{value:?}")),
        }
        let gap = if self.text.is_empty() { "" } else { " " };
        let _ = match field.name() {
            "message" => write!(self.text, "{gap}{value:?}"),
            name => write!(self.text, "{gap}{name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "stage" {
            self.stage = Some(value.to_owned());
        }
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "elapsed_us" {
            self.elapsed = Some(Duration::from_micros(value));
        }
        self.record_debug(field, &value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures_util::FutureExt as _;

    use super::*;

    /// Collects the lines that a program logging at `level` would print.
    struct Collect(Lines, Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Collect {
        fn enabled(&self, metadata: &Metadata<'_>, context: Context<'_, S>) -> bool {
            self.0.enabled(metadata, context)
        }

        fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
            self.0.on_new_span(attributes, id, context);
        }

        fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
            self.1.lock().unwrap().push(labelled_line(event, &context));
        }
    }

    fn printed(level: LogLevel, log: impl FnOnce()) -> Vec<String> {
        let lines = Arc::default();
        let subscriber = tracing_subscriber::registry().with(Collect(Lines { level }, Arc::clone(&lines)));
        tracing::subscriber::with_default(subscriber, log);
        lines.lock().unwrap().clone()
    }

    fn log_all() {
        stage("StartSession", Duration::from_micros(95_400));
        stage("key exchange", Duration::from_micros(3_449));
        tracing::info!(target: "ssmssh::detail", "region {}", "eu-west-1");
        tracing::debug!(target: "ssmssh::stream", frames = 3, "resumed");
        tracing::warn!(target: "ssmssh::ssh", "new host key");
        tracing::error!(target: "aws_smithy_runtime", "token=secret");
        tracing::debug!(target: "aws_config", "key=secret");
        tracing::warn!(target: "aws_runtime::profile", "ignored");
        tracing::debug!(target: "ssmsshx", "somebody else's");
    }

    #[test]
    fn warnings_are_always_printed_but_not_when_quiet() {
        assert!(printed(LogLevel::Quiet, log_all).is_empty());
        assert_eq!(printed(LogLevel::Info, log_all), ["warning: new host key"]);
    }

    #[test]
    fn one_v_prints_stages_with_their_durations() {
        let expected = ["StartSession 95 ms", "key exchange 3.4 ms", "region eu-west-1", "warning: new host key"];
        assert_eq!(printed(LogLevel::Stages, log_all), expected);
    }

    #[test]
    fn what_is_told_of_one_among_several_has_its_name_before_it() {
        let log = || {
            let work = async {
                stage("WebSocket", Duration::from_millis(20));
                tracing::debug!(target: "ssmssh::stream", "hello");
            };
            let _ = labelled(Some("stream 2".to_owned()), work).now_or_never();
            let _ = labelled(None, async { stage("handshake", Duration::from_millis(30)) }).now_or_never();
        };
        assert_eq!(printed(LogLevel::Stages, log), ["stream 2: WebSocket 20 ms", "handshake 30 ms"]);
        assert_eq!(printed(LogLevel::Info, log), [""; 0]);
    }

    #[test]
    fn two_v_print_debug_events_of_this_crate_and_of_others_only_what_is_wrong_with_the_configuration() {
        let lines = printed(LogLevel::Debug, log_all);
        assert!(lines.contains(&"debug: ssmssh::stream: resumed frames=3".to_owned()), "{lines:?}");
        assert!(!lines.iter().any(|line| line.contains("secret") || line.contains("else")), "{lines:?}");
        assert!(lines.contains(&"warning: aws_runtime::profile: ignored".to_owned()), "{lines:?}");
    }

    #[test]
    fn a_warning_is_a_sentence_without_names_of_fields() {
        let told = printed(LogLevel::Info, || {
            let error = std::io::Error::from_raw_os_error(13);
            tracing::warn!(path = "/state/x", %error, "no journal is kept");
        });
        assert_eq!(told, ["warning: /state/x: no journal is kept: Permission denied (os error 13)"]);
    }
}
