//! Settings of the queue.

section! {
    /// The queue between receivers and workers.
    QueueSettings {
        /// Which queue: embedded:DIRECTORY.
        queue_url: String = "embedded:.hookswitch/queue".into(), "HOOKSWITCH_QUEUE_URL";
        /// Bytes of events held at most until they are planned. Above it senders get 503.
        queue_bytes_max: u64 = 4 << 30, "HOOKSWITCH_QUEUE_BYTES_MAX";
        /// Size of a segment file of the embedded queue, in bytes.
        segment_bytes: u64 = 64 << 20, "HOOKSWITCH_QUEUE_SEGMENT_BYTES";
        /// Free bytes of the queue's disk below which intake stops with 503. Not set: 512 MiB or 5%
        /// of the disk, whichever is more.
        disk_free_bytes_min: Option<u64> = None, "HOOKSWITCH_DISK_FREE_BYTES_MIN";
    }
}
