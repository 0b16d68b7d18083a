//! Settings of the database.

section! {
    /// The database.
    StoreSettings {
        /// Which database: sqlite:PATH.
        database_url: String = "sqlite:.hookswitch/store.db".into(), "HOOKSWITCH_DATABASE_URL" or "DATABASE_URL";
    }
}
