//! Settings of the database.

section! {
    /// The database.
    StoreSettings {
        /// The database, sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE.
        database_url: String = "sqlite:.hookswitch/store.db".into(), "HOOKSWITCH_DATABASE_URL" or "DATABASE_URL";
    }
}
