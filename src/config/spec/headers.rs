//! `[headers.NAME]`: a header policy.

use crate::config::declare::spec;
use crate::config::word::HeaderFields;
use crate::headers::policy::{FieldName, Hsts};
use crate::headers::security::{Csp, Preset};

spec! {
    /// A header policy: what is added to and taken from requests and responses.
    pub struct HeadersSpec in "[headers.NAME]" {
        /// Where it starts from: "basic", "strict" or "off".
        preset: Preset = "basic";
        /// Response fields that replace what the application sent.
        set: HeaderFields = {};
        /// Response fields where the application sent none.
        default: HeaderFields = {};
        /// Response fields beside what the application sent.
        add: HeaderFields = {};
        /// Response fields that are taken out.
        remove: Vec<FieldName> = [];
        /// Content-Security-Policy by directives, where the application sent none; otherwise the preset's.
        csp: Option<Csp>;
        /// Sends the policy as Content-Security-Policy-Report-Only.
        csp_report_only: bool = false;
        /// max-age of Strict-Transport-Security, or false; on https only; otherwise the preset's.
        hsts: Option<Hsts>;
        /// Request fields that replace what the client sent.
        request_set: HeaderFields = {};
        /// Request fields that are taken out.
        request_remove: Vec<FieldName> = [];
    }
}
