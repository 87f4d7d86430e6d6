//! `tollgate certs`: a development certificate and its local authority.
