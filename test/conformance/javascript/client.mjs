// Clients of the libraries that people use, under remote control: it reads
// calls as JSON lines, does one after the other and answers each with a line;
// what the clients receive is written in between. The Go suite beside it starts
// it, and says with every connect which library and which way to take.
import awsIot from 'aws-iot-device-sdk';
import { auth, iot, mqtt, mqtt5 } from 'aws-iot-device-sdk-v2';
import mqttjs from 'mqtt';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

const write = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
// Libraries warn on standard output, which is not theirs here.
console.log = console.error;
const text = (payload) => Buffer.from(payload).toString();
const credentials = (o) => auth.AwsCredentialsProvider.newStatic(o.keyId, o.secret);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
// Version 1.28 of the SDK hangs when it is stopped between a delivery and its
// acknowledgement, with any broker: let what is on its way arrive.
const settle = () => pause(300);
const expiry = 3600;
// User properties as "key=value" texts, of MQTT.js in an object.
const pairs = (properties) => Object.entries(properties?.userProperties ?? {})
  .flatMap(([key, values]) => [values].flat().map((value) => `${key}=${value}`)).join(' ');

// What MQTT.js and version 1 of the SDK, which is built on it, have in common.
function classic(client, connack, leave) {
  const done = (resolve, reject) => (error, granted) => (error ? reject(error) : resolve(granted));
  return {
    resumed: Boolean(connack?.sessionPresent),
    subscribe: async (filter) => {
      const granted = await new Promise((resolve, reject) => client.subscribe(filter, { qos: 1 }, done(resolve, reject)));
      if (granted?.some(({ qos }) => qos > 1)) throw new Error(`refused: ${JSON.stringify(granted)}`);
    },
    publish: (topic, message, retain) => new Promise((resolve, reject) => client.publish(topic, message, { qos: 1, retain }, done(resolve, reject))),
    leave,
  };
}

const refusal = (client) => new Promise((_, reject) => {
  client.on('error', reject);
  client.on('close', () => reject(new Error('closed before it was connected')));
});

async function connectMQTTjs(o, received) {
  const client = mqttjs.connect(o.url, {
    clientId: o.clientId, protocolVersion: o.version, clean: !o.persistent, reconnectPeriod: 0, ca: readFileSync(o.ca),
    username: o.username, password: o.password, wsOptions: { headers: o.headers, ca: readFileSync(o.ca) },
    ...(o.cert && { cert: readFileSync(o.cert), key: readFileSync(o.key) }),
    ...(o.alpn && { ALPNProtocols: [o.alpn] }),
    ...(o.persistent && o.version === 5 && { properties: { sessionExpiryInterval: expiry } }),
  });
  client.on('message', (topic, payload, packet) => received(topic, text(payload), pairs(packet.properties)));
  client.stream.on('error', (error) => client.emit('error', error));
  const refused = refusal(client);
  refused.catch(() => {});
  const [connack] = await Promise.race([once(client, 'connect'), refused]);
  return classic(client, connack, () => client.endAsync());
}

async function connectV1(o, received) {
  const ways = {
    mtls: { protocol: 'mqtts', keyPath: o.key, certPath: o.cert, caPath: o.ca, ...(o.alpn && { ALPNProtocols: [o.alpn] }) },
    sigv4: { protocol: 'wss', region: o.region, accessKeyId: o.keyId, secretKey: o.secret },
    custom: {
      protocol: 'wss-custom-auth', region: o.region, username: o.username, password: o.password,
      customAuthHeaders: o.headers ?? {}, customAuthQueryString: o.query,
    },
  };
  const device = awsIot.device({ host: 'localhost', port: o.port, clientId: o.clientId, clean: !o.persistent, websocketOptions: { ca: readFileSync(o.ca) }, baseReconnectTimeMs: 15_000, maximumReconnectTimeMs: 60_000, ...ways[o.proof] });
  device.on('message', (topic, payload) => received(topic, text(payload)));
  const refused = refusal(device);
  refused.catch(() => {});
  const [connack] = await Promise.race([once(device, 'connect'), refused]).catch((error) => {
    device.end(true);
    throw error;
  });
  return classic(device, connack, () => new Promise((resolve) => device.end(false, resolve)));
}

async function connectV2for311(o, received) {
  const { AwsIotMqttConnectionConfigBuilder: Builder } = iot;
  const ways = {
    mtls: () => Builder.new_mtls_builder_from_path(o.cert, o.key),
    sigv4: () => Builder.new_with_websockets({ region: o.region, credentials_provider: credentials(o) }),
    custom: () => {
      const a = o.authorizer;
      return (o.webSocket ? Builder.new_builder_for_websocket() : Builder.new_default_builder())
        .with_custom_authorizer(a.username, a.name, a.signature, a.password, a.tokenKey, a.token);
    },
  };
  const config = ways[o.proof]()
    .with_certificate_authority_from_path(undefined, o.ca)
    .with_endpoint('localhost')
    .with_port(o.port)
    .with_client_id(o.clientId)
    .with_clean_session(!o.persistent)
    .with_keep_alive_seconds(60);
  const connection = new mqtt.MqttClient().new_connection(config.build());
  connection.on('message', (topic, payload) => received(topic, text(payload)));
  connection.on('error', () => {}); // the call says it, too
  const resumed = await connection.connect();
  return {
    resumed,
    subscribe: async (filter) => {
      const granted = await connection.subscribe(filter, mqtt.QoS.AtLeastOnce);
      if (granted.error_code) throw new Error(`refused: ${JSON.stringify(granted)}`);
    },
    publish: (topic, message, retain) => connection.publish(topic, message, mqtt.QoS.AtLeastOnce, retain),
    leave: async () => {
      await settle();
      await connection.disconnect();
    },
  };
}

async function connectV2for5(o, received) {
  const { AwsIotMqtt5ClientConfigBuilder: Builder } = iot;
  const a = o.authorizer;
  const custom = a && { authorizerName: a.name, username: a.username, password: Buffer.from(a.password), tokenKeyName: a.tokenKey, tokenValue: a.token, tokenSignature: a.signature };
  const ways = {
    mtls: () => Builder.newDirectMqttBuilderWithMtlsFromPath('localhost', o.cert, o.key),
    sigv4: () => Builder.newWebsocketMqttBuilderWithSigv4Auth('localhost', { region: o.region, credentialsProvider: credentials(o) }),
    // Over WebSocket this builder does not encode the signature.
    custom: () => (o.webSocket
      ? Builder.newWebsocketMqttBuilderWithCustomAuth('localhost', { ...custom, tokenSignature: custom.tokenSignature && encodeURIComponent(custom.tokenSignature) })
      : Builder.newDirectMqttBuilderWithCustomAuth('localhost', custom)),
  };
  const config = ways[o.proof]()
    .withCertificateAuthorityFromPath(undefined, o.ca)
    .withPort(o.port)
    .withSessionBehavior(o.persistent ? mqtt5.ClientSessionBehavior.RejoinAlways : mqtt5.ClientSessionBehavior.Clean)
    .withConnectProperties({ clientId: o.clientId, keepAliveIntervalSeconds: 60, ...(o.persistent && { sessionExpiryIntervalSeconds: expiry }) });
  const client = new mqtt5.Mqtt5Client(config.build());
  client.on('messageReceived', ({ message }) => received(
    message.topicName, text(message.payload), (message.userProperties ?? []).map(({ name, value }) => `${name}=${value}`).join(' '),
  ));
  const stop = async () => {
    const stopped = once(client, 'stopped');
    client.stop({ reasonCode: mqtt5.DisconnectReasonCode.NormalDisconnection });
    await stopped;
    client.close();
  };
  const connected = new Promise((resolve, reject) => {
    client.on('connectionSuccess', resolve);
    client.on('connectionFailure', ({ error, connack }) => reject(new Error(`${error.error_name}${connack ? ` ${connack.reasonCode}` : ''}`)));
  });
  client.start();
  const { connack } = await connected.catch(async (error) => {
    await stop();
    throw error;
  });
  return {
    resumed: connack.sessionPresent,
    subscribe: async (filter) => {
      const { reasonCodes } = await client.subscribe({ subscriptions: [{ topicFilter: filter, qos: mqtt5.QoS.AtLeastOnce }] });
      if (reasonCodes.some((code) => code > 1)) throw new Error(`refused: ${reasonCodes}`);
    },
    publish: async (topic, message, retain) => {
      const { reasonCode } = await client.publish({ topicName: topic, payload: message, qos: mqtt5.QoS.AtLeastOnce, retain });
      if (reasonCode >= 128) throw new Error(`refused: ${reasonCode}`);
    },
    leave: async () => {
      await settle();
      await stop();
    },
  };
}

const libraries = { mqttjs: connectMQTTjs, 'sdk-v1': connectV1, 'sdk-v2-311': connectV2for311, 'sdk-v2-5': connectV2for5 };
const connections = new Map();

async function call({ do: what, on, ...o }) {
  if (what === 'connect') {
    const made = await libraries[o.library](o, (topic, payload, properties) => write({ on, topic, payload, properties }));
    connections.set(on, made);
    return { resumed: made.resumed };
  }
  const connection = connections.get(on);
  if (what === 'subscribe') await connection.subscribe(o.topic);
  if (what === 'publish') await connection.publish(o.topic, o.payload, Boolean(o.retain));
  if (what === 'leave') await connection.leave();
  return {};
}

for await (const line of createInterface({ input: process.stdin })) {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error('not done within 15 s')), 15_000); });
  try {
    write({ done: true, ...(await Promise.race([call(JSON.parse(line)), late])) });
  } catch (error) {
    write({ done: true, error: [error.error_name, String(error.message ?? error)].filter(Boolean).join(' ') });
  }
  clearTimeout(timer);
}
process.exit(0);
