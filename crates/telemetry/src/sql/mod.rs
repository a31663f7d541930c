//! Read-only SQL.
use std::time::Instant;

use portcullis_ports::{SqlAnswer, SqlRequest};

use crate::error::{Result, StoreError};
use crate::read::Confinement;
use crate::store::Store;

pub(crate) async fn answer(_store: &Store, _deadline: Instant, _confinement: Confinement, _request: &SqlRequest) -> Result<SqlAnswer> {
    Err(StoreError::Closed)
}
