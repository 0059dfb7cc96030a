//! Errors as answers.

use contract::ApiError;

use super::writer::Writer;
use super::{Language, Style, in_wrapper};

/// The answer for an error.
pub fn error(wrapper: &str, error: &ApiError, root: bool, language: Language) -> String {
    let style = Style { language, role: contract::RoleType::Unspecified, encode: false };
    let written: Result<String, ApiError> = in_wrapper!(style, wrapper, error.text.len(), |out| {
        fields(&mut out, error, root);
        Ok(())
    });
    written.unwrap_or_default()
}

fn fields<W: Writer>(out: &mut W, error: &ApiError, root: bool) {
    if W::XML {
        if !error.entities.is_empty() {
            out.begin("uuidList");
            for entity in &error.entities {
                out.text("uuid", &entity.uuid);
                out.text("uuidProperty", &entity.description);
            }
            out.end("uuidList");
        }
    } else {
        out.begin_list("uuidList");
        for entity in &error.entities {
            out.begin_item("uuidList");
            out.text("uuid", &entity.uuid);
            out.text("description", &entity.description);
            out.end_item("uuidList");
        }
        out.end_list("uuidList");
    }
    out.bare("errorcode", error.code);
    if error.cs_code != 0 {
        out.bare("cserrorcode", error.cs_code);
    }
    out.text("errortext", error.text_for(root));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_recorded() {
        let fault = ApiError::missing_param("deployVirtualMachine", "zoneid");
        let text = "Unable to execute API command deployvirtualmachine due to missing parameter zoneid";
        assert_eq!(
            error("deployvirtualmachineresponse", &fault, false, Language::Json),
            format!(
                r#"{{"deployvirtualmachineresponse":{{"uuidList":[],"errorcode":431,"cserrorcode":9999,"errortext":"{text}"}}}}"#
            )
        );
        assert_eq!(
            error("deployvirtualmachineresponse", &fault, false, Language::Xml),
            format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?><deployvirtualmachineresponse cloud-stack-version=\"4.11.1.0\">\
                 <errorcode>431</errorcode><cserrorcode>9999</cserrorcode><errortext>{text}</errortext>\
                 </deployvirtualmachineresponse>"
            )
        );
    }

    #[test]
    fn entities_and_hidden_texts() {
        let fault = ApiError::capacity("host 5 is full").with_entity("u-1", "hostid");
        let json = |root| error("w", &fault, root, Language::Json);
        assert!(json(true).contains("host 5 is full"));
        assert!(!json(false).contains("host 5 is full"));
        assert!(json(false).contains(r#""uuidList":[{"uuid":"u-1","description":"hostid"}]"#));
        let fault = ApiError { cs_code: 0, ..fault };
        let xml = error("w", &fault, false, Language::Xml);
        assert!(xml.contains("<uuidList><uuid>u-1</uuid><uuidProperty>hostid</uuidProperty></uuidList>"));
        assert!(!xml.contains("cserrorcode"));
    }
}
