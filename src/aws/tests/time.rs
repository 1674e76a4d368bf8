//! An API that lets one wait, and one that has another time.

use super::*;

/// Takes the connection, and says nothing.
#[derive(Debug, Clone)]
struct Silent;

impl HttpConnector for Silent {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_that_accepts_and_never_answers_is_told_in_words_with_the_time_that_it_had() {
    let timeouts = TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT_TIMEOUT).build();
    let config = config("eu-west-1", http_client_fn(|_, _| SharedHttpConnector::new(Silent))).into_builder();
    let config = config.timeout_config(timeouts).retry_config(RetryConfig::standard());
    let service = AwsService::from_sdk_config(&config.endpoint_url("https://api.example").build()).unwrap();
    let failure = start_failure(&service).await;
    let said = "StartSession got no answer: api.example accepts connections and stays silent (3 tries of 20 s)";
    assert_eq!(failure.to_string(), said);
    assert!(failure.is_transient());
}

#[tokio::test]
async fn what_is_signed_has_the_services_time_once_an_answer_has_told_it() {
    let service = granted().service();
    let soon = SystemTime::now() + Duration::from_hours(2);
    assert!(service.learn_time(soon), "the next signature is another");
    assert!(!service.learn_time(soon), "nothing new");
    let headers = service.sign_upgrade(STREAM_URL).await.unwrap();
    let date = headers.iter().find(|(name, _)| name == "x-amz-date").unwrap().1.to_str().unwrap();
    let hour = humantime_hour(SystemTime::now() + Duration::from_hours(2));
    assert!(date.contains(&hour), "{date}: {hour}");
}

/// `T13`, as the hour of an `x-amz-date` is.
fn humantime_hour(time: SystemTime) -> String {
    let date = httpdate::fmt_http_date(time);
    format!("T{}", &date[17..19])
}
