//! PEM, which is too small for a dependency: for certificates only, which are public; keys are written by the library that
//! makes them.

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A certificate in PEM, in lines of 64 characters.
pub(crate) fn certificate_pem(der: &[u8]) -> String {
    let mut body = String::with_capacity(der.len().div_ceil(3) * 4);
    for group in der.chunks(3) {
        let mut bits = [0; 4];
        bits[1..1 + group.len()].copy_from_slice(group);
        let number = u32::from_be_bytes(bits);
        for position in 0..4 {
            let used = position <= group.len();
            let letter = BASE64[(number >> (18 - 6 * position)) as usize & 63];
            body.push(if used { char::from(letter) } else { '=' });
        }
    }
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    #[test]
    fn pem_of_every_length_reads_back() {
        for length in 1..200u8 {
            let der: Vec<u8> = (0..length).map(|byte| byte.wrapping_mul(7)).collect();
            let back = CertificateDer::from_pem_slice(certificate_pem(&der).as_bytes()).expect("parses");
            assert_eq!(back.as_ref(), der.as_slice());
        }
    }
}
