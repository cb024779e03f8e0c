//! The description of the HTTP interface for programs.

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

pub(super) async fn document() -> Response {
    ([(CONTENT_TYPE, "application/json")], description().to_string()).into_response()
}

/// Returns the interface as OpenAPI 3.1.
fn description() -> Value {
    let formats = ["json", "ndjson", "csv", "arrow"];
    let error = |what: &str| {
        json!({
            "description": what,
            "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
        })
    };
    let answers = json!({
        "200": {
            "description": "The rows. The header `x-gristmill-rows` counts them.",
            "content": {
                "application/json": { "schema": { "$ref": "#/components/schemas/Answer" } },
                "application/x-ndjson": { "schema": { "type": "string" } },
                "text/csv": { "schema": { "type": "string" } },
                "application/vnd.apache.arrow.stream": {
                    "schema": { "type": "string", "contentMediaType": "application/octet-stream" },
                },
            },
        },
        "400": error("The statement has a mistake; the message says where."),
        "401": error("No token, a wrong one, or one that has expired."),
        "403": error("The statement would do more than ask."),
        "422": error("A limit: statement, memory, time, rows or bytes. The hint says how to ask for less."),
        "429": error("Too many questions wait; `Retry-After` says when to ask again."),
        "500": error("A defect of the server, or a damaged corpus."),
    });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Gristmill",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "SQL over the datasets of corpora, read-only. Arrow Flight SQL is on the same port.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "security": [{}, { "bearer": [] }],
        "paths": {
            "/query": {
                "post": {
                    "operationId": "query",
                    "summary": "Answer a statement.",
                    "requestBody": {
                        "required": true,
                        "content": {
                            "application/json": { "schema": { "$ref": "#/components/schemas/Question" } },
                            "text/plain": { "schema": { "type": "string" } },
                        },
                    },
                    "responses": answers,
                },
                "get": {
                    "operationId": "queryByLink",
                    "summary": "The same, as a link that can be shared.",
                    "parameters": [
                        { "name": "sql", "in": "query", "required": true, "schema": { "type": "string" } },
                        { "name": "format", "in": "query", "schema": { "type": "string", "enum": formats, "default": "json" } },
                    ],
                    "responses": answers,
                },
            },
            "/healthz": {
                "get": {
                    "operationId": "health",
                    "summary": "Whether the server answers. Needs no token.",
                    "security": [{}],
                    "responses": { "200": { "description": "It does." } },
                },
            },
            "/metrics": {
                "get": {
                    "operationId": "metrics",
                    "summary": "Counters in Prometheus' text format.",
                    "responses": { "200": { "description": "The counters.", "content": { "text/plain": {} } }, "401": error("No token.") },
                },
            },
        },
        "components": {
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
            "schemas": {
                "Question": {
                    "type": "object",
                    "required": ["sql"],
                    "additionalProperties": false,
                    "properties": {
                        "sql": { "type": "string", "examples": ["select count(*) as n from documents"] },
                        "format": { "type": "string", "enum": formats, "default": "json" },
                    },
                },
                "Answer": {
                    "type": "object",
                    "required": ["columns", "rows", "n_rows"],
                    "properties": {
                        "columns": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "required": ["name", "type"],
                                "properties": { "name": { "type": "string" }, "type": { "type": "string" } },
                            },
                        },
                        "rows": { "type": "array", "items": { "type": "object" } },
                        "n_rows": { "type": "integer" },
                    },
                },
                "Problem": {
                    "type": "object",
                    "required": ["error"],
                    "properties": {
                        "error": {
                            "type": "object",
                            "required": ["code", "message"],
                            "properties": {
                                "code": { "type": "string" },
                                "message": { "type": "string" },
                                "hint": { "type": ["string", "null"] },
                            },
                        },
                    },
                },
            },
        },
    })
}
