//! Questions over Arrow Flight SQL: ADBC, JDBC and what is built on them.
//!
//! Nothing is kept between calls: a ticket or the handle of a prepared statement is the statement itself, with its parameters.
//! Views of text and bytes leave as plain text and bytes, which older clients know.

use std::pin::Pin;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::FlightServiceServer;
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};
use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest,
    ActionCreatePreparedStatementResult, CommandGetCatalogs, CommandGetDbSchemas,
    CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandPreparedStatementQuery,
    CommandStatementQuery, DoPutPreparedStatementResult, ProstMessageExt, SqlInfo,
    TicketStatementQuery,
};
use arrow_flight::{
    Action, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest,
    HandshakeResponse, IpcMessage, SchemaAsIpc, Ticket,
};
use arrow_ipc::writer::IpcWriteOptions;
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::prelude::DataFrame;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use futures::{Stream, StreamExt, TryStreamExt};
use prost::Message;
use prost::bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout_at;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};

use super::guard::Peer;
use super::service::{Question, Service, Size, Started, Turn, code};
use super::token::{Asker, presented};
use crate::limit::{Bounded, of_engine, out_of_time, too_many_bytes};
use crate::{Error, Result};

/// Batches between the question and the connection.
const BATCHES_READY: usize = 2;
/// The name of every table type.
const TABLE: &str = "TABLE";

/// What clients ask about the server itself.
static INFO: LazyLock<SqlInfoData> = LazyLock::new(|| {
    let mut info = SqlInfoDataBuilder::new();
    info.append(SqlInfo::FlightSqlServerName, "Gristmill");
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(SqlInfo::FlightSqlServerArrowVersion, "1.3");
    info.append(SqlInfo::FlightSqlServerReadOnly, true);
    info.append(SqlInfo::FlightSqlServerSql, true);
    info.append(SqlInfo::FlightSqlServerSubstrait, false);
    info.append(SqlInfo::FlightSqlServerTransaction, 0_i32);
    info.append(SqlInfo::FlightSqlServerCancel, false);
    info.append(SqlInfo::SqlDdlCatalog, false);
    info.append(SqlInfo::SqlDdlSchema, false);
    info.append(SqlInfo::SqlDdlTable, false);
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    info.build().expect("these are the types of these infos")
});

/// Flight SQL over a [`Service`].
#[derive(Debug)]
pub(super) struct Flight {
    service: Arc<Service>,
}

type Answer<T> = Result<Response<T>, Status>;
type FlightStream = Pin<Box<dyn Stream<Item = Result<FlightData, Status>> + Send>>;

/// Returns the service as routes beside those of HTTP.
pub(super) fn routes(service: Arc<Service>) -> axum::Router {
    let server = FlightServiceServer::new(Flight { service });
    axum::Router::new().route_service("/arrow.flight.protocol.FlightService/{*call}", server)
}

/// A statement and its parameters: what stands in tickets and handles.
#[derive(Clone, PartialEq, Message)]
struct Handle {
    #[prost(string, tag = "1")]
    sql: String,
    /// One batch as an Arrow IPC stream; empty without parameters.
    #[prost(bytes = "bytes", tag = "2")]
    parameters: Bytes,
}

impl Handle {
    fn new(sql: String) -> Self {
        Self { sql, parameters: Bytes::new() }
    }

    fn read(bytes: &[u8]) -> Result<Self, Status> {
        Self::decode(bytes).map_err(|error| Status::invalid_argument(error.to_string()))
    }

    fn bytes(&self) -> Bytes {
        self.encode_to_vec().into()
    }

    /// The first row of the parameters.
    fn values(&self) -> Result<Option<ParamValues>, Status> {
        if self.parameters.is_empty() {
            return Ok(None);
        }
        let wrong = |error: &dyn std::fmt::Display| Status::invalid_argument(error.to_string());
        let batches = arrow_ipc::reader::StreamReader::try_new(&*self.parameters, None)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| wrong(&error))?;
        let Some(batch) = batches.iter().find(|batch| batch.num_rows() > 0) else {
            return Ok(None);
        };
        let values: Result<Vec<_>, _> =
            batch.columns().iter().map(|column| ScalarValue::try_from_array(column, 0)).collect();
        let values = values.map_err(|error| wrong(&error))?;
        Ok(Some(ParamValues::from(values)))
    }
}

impl Flight {
    fn question<T>(&self, request: &Request<T>, handle: &Handle) -> Result<Question, Status> {
        Ok(Question {
            asker: asker(request)?,
            peer: request.extensions().get::<Peer>().map(|Peer(address)| *address),
            protocol: "flight",
            sql: handle.sql.clone(),
            parameters: handle.values()?,
        })
    }

    /// Plans a statement and says what its rows and parameters are.
    async fn describe(&self, question: Question) -> Result<(SchemaRef, Schema), Status> {
        let work = |frame: DataFrame, _turn: Turn| async move {
            let rows = plain_schema(frame.schema().inner());
            Ok(((rows, parameters(&frame)?), Size::default()))
        };
        self.service.start(question, work).finish().await.map_err(|error| status(&error))
    }

    async fn info<T>(
        &self,
        request: Request<T>,
        handle: &Handle,
        ticket: Bytes,
        descriptor: FlightDescriptor,
    ) -> Answer<FlightInfo> {
        let question = self.question(&request, handle)?;
        let (schema, _) = self.describe(question).await?;
        Ok(Response::new(info(&schema, ticket, descriptor)?))
    }

    /// Answers a statement, batch by batch.
    async fn rows<T>(&self, request: Request<T>, handle: &Handle) -> Answer<FlightStream> {
        let question = self.question(&request, handle)?;
        let (schema_sender, schema) = oneshot::channel();
        let (sender, batches) = mpsc::channel(BATCHES_READY);
        let work = |frame, turn| send_rows(frame, turn, schema_sender, sender);
        let started = self.service.start(question, work);
        let Ok(schema) = schema.await else {
            // The question ended before it had columns.
            return match started.finish().await {
                Err(error) => Err(status(&error)),
                Ok(()) => Err(Status::internal("an answer without columns")),
            };
        };
        let batches = futures::stream::unfold((batches, Some(started)), next_batch);
        let encoder = FlightDataEncoderBuilder::new().with_schema(schema).build(batches);
        Ok(Response::new(Box::pin(encoder.map_err(Status::from))))
    }

    /// An answer that is made at once.
    fn batch(batch: arrow::error::Result<RecordBatch>) -> Answer<FlightStream> {
        let batch = batch.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let schema = batch.schema();
        let rows = futures::stream::iter([Ok(batch)]);
        let encoder = FlightDataEncoderBuilder::new().with_schema(schema).build(rows);
        Ok(Response::new(Box::pin(encoder.map_err(Status::from))))
    }

    async fn context<T>(
        &self,
        request: &Request<T>,
    ) -> Result<datafusion::prelude::SessionContext, Status> {
        let asker = asker(request)?;
        self.service.context(&asker).await.map_err(|error| status(&error))
    }
}

async fn send_rows(
    frame: DataFrame,
    turn: Turn,
    schema: oneshot::Sender<SchemaRef>,
    sender: mpsc::Sender<RecordBatch>,
) -> Result<((), Size)> {
    let stream = frame.execute_stream().await.map_err(of_engine)?;
    let plain = plain_schema(&stream.schema());
    let mut size = Size::default();
    let mut rows = Bounded::new(stream, turn.limits, turn.end);
    let mut schema = Some(schema);
    loop {
        // The first rows come with the columns: what fails at once is an error of the call, not of its stream.
        let batch = rows.next().await?;
        if let Some(schema) = schema.take()
            && schema.send(Arc::clone(&plain)).is_err()
        {
            return Ok(((), size));
        }
        let Some(batch) = batch else { return Ok(((), size)) };
        let batch = plain_batch(&batch, &plain)?;
        size.rows += batch.num_rows() as u64;
        let bytes: Result<Vec<usize>, _> =
            batch.columns().iter().map(|it| it.to_data().get_slice_memory_size()).collect();
        size.bytes += bytes?.into_iter().sum::<usize>() as u64;
        if size.bytes > turn.limits.bytes {
            return Err(too_many_bytes(turn.limits.bytes));
        }
        match timeout_at(turn.end, sender.send(batch)).await {
            Err(_) => return Err(out_of_time(turn.limits.time)),
            Ok(Err(_)) => return Ok(((), size)),
            Ok(Ok(())) => {}
        }
    }
}

type Rest = (mpsc::Receiver<RecordBatch>, Option<Started<()>>);

/// The next batch, and behind the last one the error of the question, if it had one.
async fn next_batch(
    (mut batches, started): Rest,
) -> Option<(Result<RecordBatch, FlightError>, Rest)> {
    if let Some(batch) = batches.recv().await {
        return Some((Ok(batch), (batches, started)));
    }
    match started?.finish().await {
        Ok(()) => None,
        Err(error) => Some((Err(FlightError::Tonic(Box::new(status(&error)))), (batches, None))),
    }
}

fn asker<T>(request: &Request<T>) -> Result<Asker, Status> {
    let asker = request.extensions().get::<Asker>().cloned();
    asker.ok_or_else(|| Status::unauthenticated("a token is missing"))
}

fn status(error: &Error) -> Status {
    let text = error.to_string();
    match code(error) {
        "refused" => Status::permission_denied(text),
        "queue" => Status::unavailable(text),
        "time" => Status::deadline_exceeded(text),
        "statement" | "memory" | "rows" | "bytes" => Status::resource_exhausted(text),
        "internal" => {
            tracing::error!(message = text, "could not answer");
            Status::internal(text)
        }
        _ => Status::invalid_argument(text),
    }
}

fn info(
    schema: &Schema,
    ticket: Bytes,
    descriptor: FlightDescriptor,
) -> Result<FlightInfo, Status> {
    let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(ticket));
    let info = FlightInfo::new()
        .try_with_schema(schema)
        .map_err(|error| Status::internal(error.to_string()))?;
    Ok(info.with_endpoint(endpoint).with_descriptor(descriptor))
}

fn ipc(schema: &Schema) -> Result<Bytes, Status> {
    let options = IpcWriteOptions::default();
    let message = IpcMessage::try_from(SchemaAsIpc::new(schema, &options))
        .map_err(|error| Status::internal(error.to_string()))?;
    Ok(message.0)
}

/// The parameters of a plan in order; text where the plan does not tell.
fn parameters(frame: &DataFrame) -> Result<Schema> {
    let mut found: Vec<(usize, Field)> = Vec::new();
    for (name, field) in frame.logical_plan().get_parameter_fields()? {
        let place = name.trim_start_matches('$').parse().unwrap_or(usize::MAX);
        let data_type = field.map_or(DataType::Utf8, |field| plain_type(field.data_type()));
        found.push((place, Field::new(name, data_type, true)));
    }
    found.sort_by_key(|(place, _)| *place);
    Ok(Schema::new(found.into_iter().map(|(_, field)| field).collect::<Vec<_>>()))
}

/// `?` as `$1`, `$2`…, the only form that the engine knows.
fn numbered(sql: &str) -> String {
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, sql).tokenize() else {
        return sql.to_owned();
    };
    let is_mark = |token: &Token| matches!(token, Token::Placeholder(mark) if mark == "?");
    if !tokens.iter().any(is_mark) {
        return sql.to_owned();
    }
    let mut n = 0;
    let mut numbered = String::with_capacity(sql.len());
    for token in tokens {
        match is_mark(&token) {
            true => {
                n += 1;
                numbered.push_str(&format!("${n}"));
            }
            false => numbered.push_str(&token.to_string()),
        }
    }
    numbered
}

fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(item) => DataType::List(Arc::new(plain_field(item))),
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(|field| plain_field(field)).collect::<Fields>())
        }
        other => other.clone(),
    }
}

fn plain_field(field: &Field) -> Field {
    field.clone().with_data_type(plain_type(field.data_type()))
}

fn plain_schema(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| plain_field(field));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn plain_batch(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns: Result<Vec<ArrayRef>, _> = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| cast(column, field.data_type()))
        .collect();
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns?, &rows)?)
}

#[tonic::async_trait]
impl FlightSqlService for Flight {
    type FlightService = Self;

    async fn do_handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Answer<Pin<Box<dyn Stream<Item = Result<HandshakeResponse, Status>> + Send>>> {
        // The token has been checked already: a name and password are answered with the password as a bearer's token.
        let headers = request.metadata().clone().into_headers();
        let token = presented(&headers).unwrap_or_default();
        let answer = HandshakeResponse { protocol_version: 0, payload: token.clone().into() };
        let answers = futures::stream::iter([Ok(answer)]);
        let mut response: Response<Pin<Box<dyn Stream<Item = _> + Send>>> =
            Response::new(Box::pin(answers));
        if !token.is_empty() {
            let bearer = MetadataValue::try_from(format!("Bearer {token}"));
            let bearer = bearer.map_err(|_| Status::unauthenticated("the token is no header"))?;
            response.metadata_mut().insert("authorization", bearer);
        }
        Ok(response)
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        let handle = Handle::new(query.query);
        let ticket = TicketStatementQuery { statement_handle: handle.bytes() };
        let descriptor = request.get_ref().clone();
        let ticket = ticket.as_any().encode_to_vec().into();
        self.info(request, &handle, ticket, descriptor).await
    }

    async fn do_get_statement(
        &self,
        ticket: TicketStatementQuery,
        request: Request<Ticket>,
    ) -> Answer<FlightStream> {
        self.rows(request, &Handle::read(&ticket.statement_handle)?).await
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let handle = Handle::new(numbered(&query.query));
        let question = self.question(&request, &handle)?;
        let (rows, parameters) = self.describe(question).await?;
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: handle.bytes(),
            dataset_schema: ipc(&rows)?,
            parameter_schema: ipc(&parameters)?,
        })
    }

    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let mut handle = Handle::read(&query.prepared_statement_handle)?;
        let data = request.into_inner().map_err(|error| FlightError::Tonic(Box::new(error)));
        let mut batches = arrow_flight::decode::FlightRecordBatchStream::new_from_flight_data(data);
        if let Some(batch) = batches.next().await {
            let batch = batch.map_err(Status::from)?;
            let write = || {
                let schema = batch.schema();
                let mut writer = arrow_ipc::writer::StreamWriter::try_new(Vec::new(), &schema)?;
                writer.write(&batch)?;
                writer.finish()?;
                writer.into_inner()
            };
            let written = write().map_err(|error| Status::invalid_argument(error.to_string()))?;
            handle.parameters = written.into();
        }
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(handle.bytes()) })
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        let handle = Handle::read(&query.prepared_statement_handle)?;
        let descriptor = request.get_ref().clone();
        let ticket = query.as_any().encode_to_vec().into();
        self.info(request, &handle, ticket, descriptor).await
    }

    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<Ticket>,
    ) -> Answer<FlightStream> {
        self.rows(request, &Handle::read(&query.prepared_statement_handle)?).await
    }

    async fn do_action_close_prepared_statement(
        &self,
        _query: ActionClosePreparedStatementRequest,
        _request: Request<Action>,
    ) -> Result<(), Status> {
        Ok(())
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        let ticket = query.as_any().encode_to_vec().into();
        let schema = query.into_builder().schema();
        Ok(Response::new(info(&schema, ticket, request.into_inner())?))
    }

    async fn do_get_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<Ticket>,
    ) -> Answer<FlightStream> {
        let mut builder = query.into_builder();
        for name in self.context(&request).await?.catalog_names() {
            builder.append(name);
        }
        Self::batch(builder.build().map_err(arrow_error))
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        let ticket = query.as_any().encode_to_vec().into();
        let schema = query.into_builder().schema();
        Ok(Response::new(info(&schema, ticket, request.into_inner())?))
    }

    async fn do_get_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<Ticket>,
    ) -> Answer<FlightStream> {
        let mut builder = query.into_builder();
        let ctx = self.context(&request).await?;
        for name in ctx.catalog_names() {
            for schema in ctx.catalog(&name).iter().flat_map(|catalog| catalog.schema_names()) {
                builder.append(&name, schema);
            }
        }
        Self::batch(builder.build().map_err(arrow_error))
    }

    async fn get_flight_info_tables(
        &self,
        query: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        let ticket = query.as_any().encode_to_vec().into();
        let schema = query.into_builder().schema();
        Ok(Response::new(info(&schema, ticket, request.into_inner())?))
    }

    async fn do_get_tables(
        &self,
        query: CommandGetTables,
        request: Request<Ticket>,
    ) -> Answer<FlightStream> {
        let mut builder = query.into_builder();
        let ctx = self.context(&request).await?;
        for catalog_name in ctx.catalog_names() {
            let Some(catalog) = ctx.catalog(&catalog_name) else { continue };
            for schema_name in catalog.schema_names() {
                let Some(schema) = catalog.schema(&schema_name) else { continue };
                for name in schema.table_names() {
                    let table = schema.table(&name).await;
                    let table = table.map_err(|error| status(&Error::Engine(error)))?;
                    let columns = table.map_or_else(
                        || Arc::new(Schema::empty()),
                        |table| plain_schema(&table.schema()),
                    );
                    builder
                        .append(&catalog_name, &schema_name, &name, TABLE, &columns)
                        .map_err(Status::from)?;
                }
            }
        }
        Self::batch(builder.build().map_err(arrow_error))
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        let ticket = query.as_any().encode_to_vec().into();
        let schema = query.into_builder().schema();
        Ok(Response::new(info(&schema, ticket, request.into_inner())?))
    }

    async fn do_get_table_types(
        &self,
        query: CommandGetTableTypes,
        _request: Request<Ticket>,
    ) -> Answer<FlightStream> {
        let mut builder = query.into_builder();
        builder.append(TABLE);
        Self::batch(builder.build().map_err(arrow_error))
    }

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        let ticket = query.as_any().encode_to_vec().into();
        let schema = query.into_builder(&INFO).schema();
        Ok(Response::new(info(&schema, ticket, request.into_inner())?))
    }

    async fn do_get_sql_info(
        &self,
        query: CommandGetSqlInfo,
        _request: Request<Ticket>,
    ) -> Answer<FlightStream> {
        Self::batch(query.into_builder(&INFO).build().map_err(arrow_error))
    }

    async fn register_sql_info(&self, _id: i32, _result: &SqlInfo) {}
}

fn arrow_error(error: FlightError) -> arrow::error::ArrowError {
    arrow::error::ArrowError::ExternalError(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_numbered_outside_of_strings_and_comments() {
        assert_eq!(numbered("select 1"), "select 1");
        assert_eq!(
            numbered("select '?' as \"a?\", ? -- ?\n where ? > 1"),
            "select '?' as \"a?\", $1 -- ?\n where $2 > 1"
        );
    }

    #[test]
    fn a_handle_is_what_it_was_made_of() {
        let handle = Handle { sql: "select $1".to_owned(), parameters: Bytes::from_static(b"x") };
        assert_eq!(Handle::read(&handle.bytes()).unwrap(), handle);
        assert_eq!(Handle::read(b"\xff\xff").unwrap_err().code(), tonic::Code::InvalidArgument);
    }
}
