//! `device.*`.

use jsonrpsee::{
    Extensions,
    core::{RpcResult, async_trait},
    types::ErrorObjectOwned,
};
use openclaw_schema::{
    ErrorCode, RpcError, Scope,
    methods::device::{
        BootstrapProfile, DeviceMethod, DevicePairApproveResult, DevicePairListResult,
        DevicePairRejectResult, DevicePairRemoveParams, DevicePairRemoveResult, DevicePairRenameParams,
        DevicePairRenameResult, DevicePairSetupCodeParams, DevicePairSetupCodeResult,
        DevicePairSetupStatusParams, DevicePairSetupStatusResult, DeviceTokenRevokeParams,
        DeviceTokenRevokeResult, DeviceTokenRotateParams, DeviceTokenRotateResult, PairingRequestParams,
        SetupAccess, TokenDelivery,
    },
    problem::ParamProblem,
    server::DeviceServer,
    types::{NoParams, Text},
};

use super::{Handlers, caller, internal, refuse};
use crate::{
    auth::AuthMethod,
    devices::{
        manage::ManageError,
        setup::{self, NoPlace},
    },
    store,
};

#[async_trait]
impl DeviceServer for Handlers {
    async fn device_pair_list(&self, _: NoParams) -> RpcResult<DevicePairListResult> {
        self.context.devices.list().await.map_err(not_done)
    }

    async fn device_pair_approve(
        &self,
        extensions: &Extensions,
        params: PairingRequestParams,
    ) -> RpcResult<DevicePairApproveResult> {
        let held: Vec<String> =
            caller(extensions)?.scopes().iter().map(Scope::name).map(str::to_owned).collect();
        let request_id = params.request_id.into_string();
        let device = self.context.devices.approve(&request_id, &held).await.map_err(not_done)?;
        Ok(DevicePairApproveResult { request_id, device })
    }

    async fn device_pair_reject(&self, params: PairingRequestParams) -> RpcResult<DevicePairRejectResult> {
        let request_id = params.request_id.into_string();
        let device_id = self.context.devices.reject(&request_id).await.map_err(not_done)?;
        Ok(DevicePairRejectResult { request_id, device_id })
    }

    async fn device_pair_remove(&self, params: DevicePairRemoveParams) -> RpcResult<DevicePairRemoveResult> {
        let device_id = params.device_id.into_string();
        self.context.devices.remove(&device_id).await.map_err(not_done)?;
        Ok(DevicePairRemoveResult { device_id })
    }

    async fn device_pair_rename(&self, params: DevicePairRenameParams) -> RpcResult<DevicePairRenameResult> {
        let (device_id, label) = (params.device_id.into_string(), params.label.into_string());
        self.context.devices.rename(&device_id, &label).await.map_err(not_done)?;
        Ok(DevicePairRenameResult { device_id, label })
    }

    async fn device_pair_setup_code(
        &self,
        extensions: &Extensions,
        params: DevicePairSetupCodeParams,
    ) -> RpcResult<DevicePairSetupCodeResult> {
        let late = self.context.late();
        let listens_on = late.map_or(&[][..], |late| &late.addresses);
        let certificate = late.and_then(|late| Some(late.tls.as_ref()?.fingerprints().certificate));
        let public_url = params.public_url.as_ref().map(Text::as_str);
        let proxy_url = late.and_then(|late| late.proxy_url.as_deref());
        let place = setup::place(public_url, proxy_url, listens_on, certificate);
        let place = place.map_err(|error| refuse(no_place(&error)))?;
        let wanted = match params.bootstrap_profile {
            None => SetupAccess::Full,
            Some(BootstrapProfile::Limited) => SetupAccess::Limited,
            Some(BootstrapProfile::Node) => SetupAccess::Node,
        };
        // Who reads along could use the code first.
        let is_downgraded = wanted == SetupAccess::Full && !place.is_private;
        let access = if is_downgraded { SetupAccess::Limited } else { wanted };
        let issued = self.context.devices.issue_setup_code(&place, access).await.map_err(not_done)?;
        let auth = match caller(extensions)?.auth_method() {
            AuthMethod::Password => AuthMethod::Password,
            // Stock knows no other word for it.
            AuthMethod::Token | AuthMethod::None => AuthMethod::Token,
        };
        Ok(DevicePairSetupCodeResult {
            setup_id: issued.setup_id,
            setup_code: issued.setup_code,
            gateway_url: place.url,
            auth: auth.name().to_owned(),
            url_source: place.source.to_owned(),
            access,
            access_downgraded: is_downgraded.then_some(true),
            expires_at_ms: issued.expires_at,
        })
    }

    async fn device_pair_setup_status(
        &self,
        params: DevicePairSetupStatusParams,
    ) -> RpcResult<DevicePairSetupStatusResult> {
        let completion = self.context.devices.setup_completion(params.setup_id.as_str()).await;
        let completion = completion.map_err(not_done)?;
        Ok(DevicePairSetupStatusResult { completion })
    }

    async fn device_token_rotate(
        &self,
        extensions: &Extensions,
        params: DeviceTokenRotateParams,
    ) -> RpcResult<DeviceTokenRotateResult> {
        let (device_id, role) = (params.device_id.into_string(), params.role.into_string());
        let scopes = params.scopes.map(|scopes| scopes.into_iter().map(Text::into_string).collect());
        let device = caller(extensions)?.device();
        let rotated =
            self.context.devices.rotate(&device_id, &role, scopes, device).await.map_err(not_done)?;
        let token_delivery = match &rotated.token {
            Some(_) => TokenDelivery::InBand,
            None => TokenDelivery::WithheldCrossDevice,
        };
        Ok(DeviceTokenRotateResult {
            device_id,
            role,
            token: rotated.token,
            scopes: rotated.scopes,
            rotated_at_ms: rotated.rotated_at,
            token_delivery: Some(token_delivery),
        })
    }

    async fn device_token_revoke(
        &self,
        params: DeviceTokenRevokeParams,
    ) -> RpcResult<DeviceTokenRevokeResult> {
        let (device_id, role) = (params.device_id.into_string(), params.role.into_string());
        let revoked_at_ms = self.context.devices.revoke(&device_id, &role).await.map_err(not_done)?;
        Ok(DeviceTokenRevokeResult { device_id, role, revoked_at_ms })
    }
}

fn no_place(error: &NoPlace) -> RpcError {
    match error {
        NoPlace::LoopbackOnly => RpcError::new(ErrorCode::Denied, error.to_string()),
        NoPlace::NotAUrl | NoPlace::Exposed(_) => {
            let path = "/publicUrl".to_owned();
            let problem =
                ParamProblem { path, reason: error.to_string(), allowed: Vec::new(), nearest: None };
            problem.into_error(DeviceMethod::DevicePairSetupCode.name())
        }
    }
}

fn not_done(error: ManageError) -> ErrorObjectOwned {
    let message = error.to_string();
    refuse(match error {
        ManageError::UnknownRequest => RpcError::not_found("/requestId", message),
        ManageError::UnknownDevice => RpcError::not_found("/deviceId", message),
        ManageError::MissingScope(_) | ManageError::RotationDenied | ManageError::RevocationDenied => {
            RpcError::new(ErrorCode::Denied, message)
        }
        ManageError::Store(error) => internal(store::chain(&error)),
        ManageError::Token(error) => internal(store::chain(&error)),
    })
}
