//! Which templates and ISOs a list shows (`templatefilter`, `isofilter`).

use contract::ApiError;
use contract::api::Caller;

/// The filters of 4.11.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Public and featured.
    Featured,
    /// Own.
    OwnAll,
    /// Own that can be deployed.
    OwnExecutable,
    /// Others' that are shared with the account.
    Shared,
    /// All that the account can deploy: own and public.
    Executable,
    /// Public and not featured.
    Community,
    /// Everything, for administrators.
    All,
}

impl Filter {
    /// Reads the word.
    ///
    /// # Errors
    /// 431 for an unknown word, and for `all` by a user.
    pub fn parse(word: &str, caller: &Caller, what: &str) -> Result<Filter, ApiError> {
        let filter = match word.to_ascii_lowercase().as_str() {
            "featured" => Filter::Featured,
            "self" => Filter::OwnAll,
            "selfexecutable" => Filter::OwnExecutable,
            "shared" | "sharedexecutable" => Filter::Shared,
            "executable" => Filter::Executable,
            "community" => Filter::Community,
            "all" => Filter::All,
            _ => {
                return Err(ApiError::param(format!(
                    "Please specify a valid {what} filter: featured, self, selfexecutable, sharedexecutable, executable, \
                     community or all"
                )));
            }
        };
        if filter == Filter::All && !caller.is_admin() {
            return Err(ApiError::param("Filter all can be specified by admin only"));
        }
        Ok(filter)
    }

    /// Whether only what can be used now is listed.
    pub fn only_ready(self) -> bool {
        !matches!(self, Filter::OwnAll | Filter::All)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::api::RoleType;

    #[test]
    fn all_is_for_admins() {
        let user = Caller { role_type: RoleType::User.into(), ..Caller::default() };
        let admin = Caller { role_type: RoleType::Admin.into(), ..Caller::default() };
        assert_eq!(
            Filter::parse("all", &user, "template").unwrap_err().text,
            "Filter all can be specified by admin only"
        );
        assert_eq!(Filter::parse("ALL", &admin, "template").unwrap(), Filter::All);
        assert_eq!(Filter::parse("nice", &user, "template").unwrap_err().code, 431);
        assert!(Filter::Featured.only_ready() && !Filter::OwnAll.only_ready());
    }
}
