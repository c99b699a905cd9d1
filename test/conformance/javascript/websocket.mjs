// A client of MQTT over WebSocket on one of the libraries that people use. It
// connects with SigV4, subscribes, publishes to itself, and leaves as it is
// told; it writes what happens as JSON lines. The Go suite beside it starts it
// and reads them.
import awsIot from 'aws-iot-device-sdk';
import { auth, iot, mqtt, mqtt5 } from 'aws-iot-device-sdk-v2';
import mqttjs from 'mqtt';
import { once } from 'node:events';

const env = process.env;
const port = Number(env.PORT);
const clientId = env.CLIENT_ID;
const topic = `ws/${clientId}`;
const will = { topic: `wills/${clientId}`, payload: 'will' };
let step = 'start';
const say = (event, data = {}) => {
  step = event;
  console.log(JSON.stringify({ event, ...data }));
};
const fail = (why) => {
  say('failed', { why: String(why?.message ?? why) });
  process.exit(1);
};
const refused = (why) => {
  say('refused', { why: String(why?.message ?? why), reason: why?.error_name });
  process.exit(0);
};
setTimeout(() => fail(`the client did not finish in 30 s, the last step was ${step}`), 30_000).unref();

const received = (payload) => say('received', { message: Buffer.from(payload).toString() });
const credentials = () => auth.AwsCredentialsProvider.newStatic(env.KEY_ID, env.SECRET);

// Each returns how to subscribe, to publish, to leave by DISCONNECT and, where
// the library lets us, by a Close frame alone.
const clients = {
  // The URL is presigned by the suite, as a web application's server would.
  'mqttjs-311': () => connectMQTTjs(4),
  'mqttjs-5': () => connectMQTTjs(5),

  async 'sdk-v1'() {
    const device = awsIot.device({
      protocol: 'wss', host: 'localhost', port, region: env.REGION, clientId, accessKeyId: env.KEY_ID, secretKey: env.SECRET,
      will: { ...will, qos: 1 }, baseReconnectTimeMs: 15_000, maximumReconnectTimeMs: 60_000,
    });
    const early = () => refused('closed before it was connected');
    device.on('error', refused);
    device.on('close', early);
    device.on('message', (_, payload) => received(payload));
    await once(device, 'connect');
    device.off('close', early);
    return {
      subscribe: () => new Promise((resolve, reject) => device.subscribe(topic, { qos: 1 }, (e) => (e ? reject(e) : resolve()))),
      publish: (text) => new Promise((resolve, reject) => device.publish(topic, text, { qos: 1 }, (e) => (e ? reject(e) : resolve()))),
      disconnect: () => new Promise((resolve) => device.end(false, resolve)),
    };
  },

  async 'sdk-v2-311'() {
    const config = iot.AwsIotMqttConnectionConfigBuilder.new_with_websockets({ region: env.REGION, credentials_provider: credentials() })
      .with_certificate_authority_from_path(undefined, env.CA)
      .with_endpoint('localhost')
      .with_port(port)
      .with_client_id(clientId)
      .with_clean_session(true)
      .with_will(new mqtt.MqttWill(will.topic, mqtt.QoS.AtLeastOnce, will.payload))
      .with_keep_alive_seconds(60);
    const connection = new mqtt.MqttClient().new_connection(config.build());
    await connection.connect().catch(refused);
    return {
      subscribe: () => connection.subscribe(topic, mqtt.QoS.AtLeastOnce, (_, payload) => received(payload)),
      publish: (text) => connection.publish(topic, text, mqtt.QoS.AtLeastOnce),
      disconnect: () => connection.disconnect(),
    };
  },

  async 'sdk-v2-5'() {
    const config = iot.AwsIotMqtt5ClientConfigBuilder.newWebsocketMqttBuilderWithSigv4Auth('localhost', { region: env.REGION, credentialsProvider: credentials() })
      .withCertificateAuthorityFromPath(undefined, env.CA)
      .withPort(port)
      .withConnectProperties({
        clientId, keepAliveIntervalSeconds: 60, will: { topicName: will.topic, payload: will.payload, qos: mqtt5.QoS.AtLeastOnce },
      });
    const client = new mqtt5.Mqtt5Client(config.build());
    client.on('connectionFailure', (e) => refused(e.error));
    client.on('messageReceived', (e) => received(e.message.payload));
    const connected = once(client, 'connectionSuccess');
    client.start();
    await connected;
    return {
      subscribe: () => client.subscribe({ subscriptions: [{ topicFilter: topic, qos: mqtt5.QoS.AtLeastOnce }] }),
      publish: (text) => client.publish({ topicName: topic, payload: text, qos: mqtt5.QoS.AtLeastOnce }),
      async disconnect() {
        const stopped = once(client, 'stopped');
        client.stop({ reasonCode: mqtt5.DisconnectReasonCode.NormalDisconnection });
        await stopped;
        client.close();
      },
    };
  },
};

async function connectMQTTjs(protocolVersion) {
  const client = mqttjs.connect(env.URL, { clientId, protocolVersion, reconnectPeriod: 0, will: { ...will, payload: Buffer.from(will.payload), qos: 1 } });
  client.on('error', refused);
  client.stream.on('error', refused);
  client.on('message', (_, payload) => received(payload));
  await once(client, 'connect');
  return {
    subscribe: () => client.subscribeAsync(topic, { qos: 1 }),
    publish: (text) => client.publishAsync(topic, text, { qos: 1 }),
    disconnect: () => client.endAsync(),
    async close() {
      const closed = once(client, 'close');
      client.stream.end();
      await closed;
    },
  };
}

try {
  const client = await clients[env.CLIENT]();
  say('connected');
  await client.subscribe();
  say('subscribed');
  await client.publish('over websocket');
  await once(process.stdin, 'data');
  // Version 1.28 of the SDK hangs when it is stopped between a delivery and its
  // acknowledgement, with any broker: let what is on its way arrive.
  await new Promise((resolve) => setTimeout(resolve, 500));
  step = 'leaving';
  await client[env.LEAVE]();
  say('closed');
  process.exit(0);
} catch (error) {
  fail(error);
}
