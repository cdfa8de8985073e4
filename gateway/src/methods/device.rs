//! `device.*`.

use jsonrpsee::{
    Extensions,
    core::{RpcResult, async_trait},
    types::ErrorObjectOwned,
};
use openclaw_schema::{
    ErrorCode, RpcError, Scope,
    methods::device::{
        DevicePairApproveResult, DevicePairListResult, DevicePairRejectResult, DevicePairRemoveParams,
        DevicePairRemoveResult, DevicePairRenameParams, DevicePairRenameResult, DeviceTokenRevokeParams,
        DeviceTokenRevokeResult, DeviceTokenRotateParams, DeviceTokenRotateResult, PairingRequestParams,
        TokenDelivery,
    },
    server::DeviceServer,
    types::{NoParams, Text},
};

use super::{Handlers, caller, internal, refuse};
use crate::devices::manage::ManageError;

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

fn not_done(error: ManageError) -> ErrorObjectOwned {
    let message = error.to_string();
    refuse(match error {
        ManageError::UnknownRequest => RpcError::not_found("/requestId", message),
        ManageError::UnknownDevice => RpcError::not_found("/deviceId", message),
        ManageError::MissingScope(_) | ManageError::RotationDenied | ManageError::RevocationDenied => {
            RpcError::new(ErrorCode::Denied, message)
        }
        ManageError::Store(error) => internal(crate::store::chain(&error)),
        ManageError::Token(error) => internal(crate::store::chain(&error)),
    })
}
