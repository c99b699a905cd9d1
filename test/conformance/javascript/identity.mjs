// A device that joins: the identity clients of the AWS IoT Device SDK v2, the
// service client and the request-response client, on MQTT 3.1.1 and 5. It
// connects with a claim, gets a certificate (keys made by the server, or a
// certificate request of its own), provisions itself by a template, and connects
// again with what it got. Each step is a JSON line; the Go suite beside it starts
// the program and compares.
import { iot, iotidentity, mqtt, mqtt5 } from 'aws-iot-device-sdk-v2';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';

const env = process.env;
let step = 'start';
const say = (event, data = {}) => {
  step = event;
  console.log(JSON.stringify({ event, ...data }));
};
const fail = (why) => {
  say('failed', { why: String(why?.message ?? why), reason: why?.error_name });
  process.exit(1);
};
setTimeout(() => fail(`the device did not finish in 60 s, the last step was ${step}`), 60_000).unref();

async function connect(clientId, cert, key) {
  if (env.PROTOCOL === '5') {
    const config = iot.AwsIotMqtt5ClientConfigBuilder.newDirectMqttBuilderWithMtlsFromPath('localhost', cert, key)
      .withCertificateAuthorityFromPath(undefined, env.CA).withPort(Number(env.PORT))
      .withConnectProperties({ clientId, keepAliveIntervalSeconds: 60 });
    const client = new mqtt5.Mqtt5Client(config.build());
    const connected = once(client, 'connectionSuccess');
    client.on('connectionFailure', (e) => fail(e.error));
    client.start();
    await connected;
    return {
      service: () => iotidentity.IotIdentityClient.newFromMqtt5Client(client),
      requests: (options) => iotidentity.IotIdentityClientv2.newFromMqtt5(client, options),
      close: async () => {
        const stopped = once(client, 'stopped');
        client.stop({ reasonCode: mqtt5.DisconnectReasonCode.NormalDisconnection });
        await stopped;
        client.close();
      },
    };
  }
  const config = iot.AwsIotMqttConnectionConfigBuilder.new_mtls_builder_from_path(cert, key)
    .with_certificate_authority_from_path(undefined, env.CA)
    .with_endpoint('localhost').with_port(Number(env.PORT)).with_client_id(clientId).with_clean_session(true).with_keep_alive_seconds(60);
  const connection = new mqtt.MqttClient().new_connection(config.build());
  await connection.connect();
  return {
    service: () => new iotidentity.IotIdentityClient(connection),
    requests: (options) => iotidentity.IotIdentityClientv2.newFromMqtt311(connection, options),
    close: () => connection.disconnect(),
  };
}

// The service client subscribes to both answers before it asks.
function serviceClient(client) {
  return async (operation, at, request) => {
    let answered;
    const answer = new Promise((resolve) => { answered = resolve; });
    const take = (accepted) => (error, response) => (error ? fail(error) : answered({ accepted, response }));
    await client[`subscribeTo${operation}Accepted`](at, mqtt.QoS.AtLeastOnce, take(true));
    await client[`subscribeTo${operation}Rejected`](at, mqtt.QoS.AtLeastOnce, take(false));
    await client[`publish${operation}`](request, mqtt.QoS.AtLeastOnce);
    return answer;
  };
}

function requestClient(client) {
  return async (operation, _, request) => {
    try {
      return { accepted: true, response: await client[operation[0].toLowerCase() + operation.slice(1)](request) };
    } catch (error) {
      if (!error.modeledError) fail(error);
      return { accepted: false, response: error.modeledError };
    }
  };
}

try {
  const device = await connect(`joining-${env.SERIAL}`, env.CERT, env.KEY);
  const ask = env.CLIENT === 'requests'
    ? requestClient(device.requests({ maxRequestResponseSubscriptions: 6, maxStreamingSubscriptions: 2, operationTimeoutInSeconds: 20 }))
    : serviceClient(device.service());
  let issued, key = env.CSR_KEY;
  if (env.CSR) {
    issued = await ask('CreateCertificateFromCsr', {}, { certificateSigningRequest: readFileSync(env.CSR, 'utf8') });
  } else {
    issued = await ask('CreateKeysAndCertificate', {}, {});
    key = `${env.DIR}/own.key`;
    if (issued.accepted) writeFileSync(key, issued.response.privateKey, { mode: 0o600 });
  }
  if (!issued.accepted) fail(JSON.stringify(issued.response));
  const { certificateId, certificatePem, certificateOwnershipToken } = issued.response;
  const cert = `${env.DIR}/own.pem`;
  writeFileSync(cert, certificatePem);
  say('issued', { clientToken: certificateId });
  const provision = (certificateOwnershipToken, parameters) =>
    ask('RegisterThing', { templateName: env.TEMPLATE }, { templateName: env.TEMPLATE, certificateOwnershipToken, parameters });
  const shown = ({ accepted, response: r }) => ({ accepted, code: r.statusCode, message: r.errorCode ?? r.thingName, state: r.deviceConfiguration });
  // What is refused may be asked again with the same token.
  say('provisioned', shown(await provision(certificateOwnershipToken, { SerialNumber: env.SERIAL, Site: 'york' })));
  say('provisioned', shown(await provision(certificateOwnershipToken, { SerialNumber: env.SERIAL, Site: 'leeds' })));
  say('provisioned', shown(await provision(certificateOwnershipToken, { SerialNumber: env.SERIAL, Site: 'leeds' })));
  // The SDK does not stop while a delivery is between arrival and acknowledgement.
  await new Promise((resolve) => setTimeout(resolve, 500));
  await device.close();
  const own = await connect(env.THING, cert, key);
  say('connected');
  await own.close();
  say('closed');
  process.exit(0);
} catch (error) {
  fail(error);
}
