// A device on the AWS IoT Device SDK v2. It connects by mutual TLS with the
// protocol and port it is told, uses the SDK's shadow clients, and writes what
// happens as JSON lines. The Go suite beside it starts it and reads them. The
// SDK offers x-amzn-mqtt-ca by ALPN of its own accord.
import { iot, iotshadow, mqtt, mqtt5 } from 'aws-iot-device-sdk-v2';
import { once } from 'node:events';

const env = process.env;
const thing = env.THING;
let step = 'start';
const say = (event, data = {}) => {
  step = event;
  console.log(JSON.stringify({ event, ...data }));
};
const fail = (why) => {
  say('failed', { why: String(why?.message ?? why), reason: why?.error_name });
  process.exit(1);
};
setTimeout(() => fail(`the device did not finish in 30 s, the last step was ${step}`), 30_000).unref();

async function connect311() {
  const config = iot.AwsIotMqttConnectionConfigBuilder.new_mtls_builder_from_path(env.CERT, env.KEY)
    .with_certificate_authority_from_path(undefined, env.CA)
    .with_endpoint('localhost')
    .with_port(Number(env.PORT))
    .with_client_id(thing)
    .with_clean_session(true)
    .with_keep_alive_seconds(60);
  const connection = new mqtt.MqttClient().new_connection(config.build());
  await connection.connect();
  return {
    shadow: new iotshadow.IotShadowClient(connection),
    requests: (options) => iotshadow.IotShadowClientv2.newFromMqtt311(connection, options),
    close: () => connection.disconnect(),
  };
}

async function connect5() {
  const config = iot.AwsIotMqtt5ClientConfigBuilder.newDirectMqttBuilderWithMtlsFromPath('localhost', env.CERT, env.KEY)
    .withCertificateAuthorityFromPath(undefined, env.CA)
    .withPort(Number(env.PORT))
    .withConnectProperties({ clientId: thing, keepAliveIntervalSeconds: 60 });
  const client = new mqtt5.Mqtt5Client(config.build());
  const connected = once(client, 'connectionSuccess');
  client.on('connectionFailure', (e) => fail(e.error));
  client.start();
  const [success] = await connected;
  say('connack', {
    receiveMaximum: success.connack.receiveMaximum,
    maximumQos: success.connack.maximumQos,
    maximumPacketSize: success.connack.maximumPacketSize,
    serverKeepAlive: success.connack.serverKeepAlive,
  });
  return {
    shadow: iotshadow.IotShadowClient.newFromMqtt5Client(client),
    requests: (options) => iotshadow.IotShadowClientv2.newFromMqtt5(client, options),
    close: async () => {
      const stopped = once(client, 'stopped');
      client.stop({ reasonCode: mqtt5.DisconnectReasonCode.NormalDisconnection });
      await stopped;
      client.close();
    },
  };
}

try {
  const device = await (env.PROTOCOL === '5' ? connect5() : connect311());
  say('connected');
  const shadow = device.shadow;

  // The first-generation service client: subscribe by hand, then publish.
  const accepted = new Promise((resolve, reject) => {
    Promise.all([
      shadow.subscribeToUpdateShadowAccepted({ thingName: thing }, mqtt.QoS.AtLeastOnce, (error, response) => (error ? reject(error) : resolve(response))),
      shadow.subscribeToUpdateShadowRejected({ thingName: thing }, mqtt.QoS.AtLeastOnce, (_, response) => reject(new Error(JSON.stringify(response)))),
    ]).then(() => say('subscribed'), reject);
  });
  let sawDelta;
  const delta = new Promise((resolve) => { sawDelta = resolve; });
  await shadow.subscribeToShadowDeltaUpdatedEvents({ thingName: thing }, mqtt.QoS.AtLeastOnce, (error, response) => (error ? fail(error) : sawDelta(response)));
  await shadow.publishUpdateShadow(
    { thingName: thing, clientToken: 'js-1', state: { desired: { led: 'on' }, reported: { battery: 95 } } },
    mqtt.QoS.AtLeastOnce,
  );
  const answer = await accepted;
  say('accepted', { clientToken: answer.clientToken, version: answer.version, state: answer.state });
  const difference = await delta;
  say('delta', { version: difference.version, state: difference.state });

  // The request-response client: it drops any answer without its own token.
  const requests = device.requests({ maxRequestResponseSubscriptions: 4, maxStreamingSubscriptions: 2, operationTimeoutInSeconds: 10 });
  const got = await requests.getShadow({ thingName: thing });
  say('get', { version: got.version, state: got.state });
  const named = await requests.updateNamedShadow({ thingName: thing, shadowName: 'config', state: { desired: { mode: 'eco' } } });
  say('named', { version: named.version, state: named.state });
  const removed = await requests.deleteNamedShadow({ thingName: thing, shadowName: 'config' });
  say('deleted', { version: removed.version });
  try {
    await requests.getNamedShadow({ thingName: thing, shadowName: 'config' });
    fail('a deleted shadow was returned');
  } catch (error) {
    say('rejected', { code: error.modeledError?.code, message: error.modeledError?.message });
  }
  requests.close();

  // Stay connected until the suite has searched for us.
  say('waiting');
  await once(process.stdin, 'data');
  // Version 1.28 of the SDK hangs when it is stopped between a delivery and its
  // acknowledgement, with any broker: let what is on its way arrive.
  await new Promise((resolve) => setTimeout(resolve, 500));
  step = 'leaving';
  await device.close();
  say('closed');
  process.exit(0);
} catch (error) {
  fail(error);
}
