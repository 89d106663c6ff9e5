//! One tick into a durable log and out of it again. Run it twice: the second run reads only what is new,
//! because the group remembers how far it has come.

use std::time::Duration;

use tapelog::{Compression, Log, Record, TopicConfig};

fn main() -> tapelog::Result<()> {
    let log = Log::open("quickstart-data")?;
    let tickers =
        log.ensure_topic("stock_tickers", TopicConfig::new().partitions(4).compression(Compression::Lz4))?;

    let producer = log.producer().build()?;
    let tick = r#"{"symbol":"AAPL","price":150.23,"volume":10000}"#;
    let delivery = producer.send(&tickers, Record::new(tick).key("AAPL"))?;
    println!("sent to partition {} at offset {}", delivery.partition(), delivery.offset());
    delivery.wait()?;

    let group = log.consumer_group("risk")?;
    let mut consumer = group.subscribe(["stock_tickers"])?;
    let records = consumer.poll(Duration::from_secs(1))?;
    for record in &records {
        let (key, value) = (record.key().unwrap_or_default(), record.value().unwrap_or_default());
        println!("read {} {} @{}", key.escape_ascii(), String::from_utf8_lossy(value), record.offset());
    }
    consumer.commit()?;
    Ok(())
}
