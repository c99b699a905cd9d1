// Every operation of the shadow clients of the AWS IoT Device SDKs: the
// service clients of v2, its request-response clients with their streams, and
// thingShadow of v1. It connects by mutual TLS with the SDK and protocol that it
// is told and writes each answer as a JSON line. The Go suite beside it starts
// it and compares: whatever the SDK, the lines are the same.
import awsIot from 'aws-iot-device-sdk';
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
setTimeout(() => fail(`the device did not finish in 60 s, the last step was ${step}`), 60_000).unref();

// queue hands values over to whoever waits for them, in order.
function queue() {
  const values = [], waiting = [];
  return {
    put: (v) => (waiting.length ? waiting.shift()(v) : values.push(v)),
    take: () => (values.length ? Promise.resolve(values.shift()) : new Promise((resolve) => waiting.push(resolve))),
  };
}

async function connect311() {
  const config = iot.AwsIotMqttConnectionConfigBuilder.new_mtls_builder_from_path(env.CERT, env.KEY)
    .with_certificate_authority_from_path(undefined, env.CA)
    .with_endpoint('localhost').with_port(Number(env.PORT)).with_client_id(thing).with_clean_session(true).with_keep_alive_seconds(60);
  const connection = new mqtt.MqttClient().new_connection(config.build());
  await connection.connect();
  return {
    service: () => new iotshadow.IotShadowClient(connection),
    requests: (options) => iotshadow.IotShadowClientv2.newFromMqtt311(connection, options),
    close: () => connection.disconnect(),
  };
}

async function connect5() {
  const config = iot.AwsIotMqtt5ClientConfigBuilder.newDirectMqttBuilderWithMtlsFromPath('localhost', env.CERT, env.KEY)
    .withCertificateAuthorityFromPath(undefined, env.CA).withPort(Number(env.PORT))
    .withConnectProperties({ clientId: thing, keepAliveIntervalSeconds: 60 });
  const client = new mqtt5.Mqtt5Client(config.build());
  const connected = once(client, 'connectionSuccess');
  client.on('connectionFailure', (e) => fail(e.error));
  client.start();
  await connected;
  return {
    service: () => iotshadow.IotShadowClient.newFromMqtt5Client(client),
    requests: (options) => iotshadow.IotShadowClientv2.newFromMqtt5(client, options),
    close: async () => {
      const stopped = once(client, 'stopped');
      client.stop({ reasonCode: mqtt5.DisconnectReasonCode.NormalDisconnection });
      await stopped;
      client.close();
    },
  };
}

// The service clients: each answer is subscribed to by hand.
async function onServiceClient(device, name) {
  const client = device.service();
  const at = { thingName: thing, ...(name && { shadowName: name }) };
  const kind = name ? 'NamedShadow' : 'Shadow';
  const answers = queue(), deltas = queue(), documents = queue();
  const answer = (accepted) => (error, response) => (error ? fail(error) : answers.put({ accepted, response }));
  for (const operation of ['Get', 'Update', 'Delete']) {
    for (const outcome of ['Accepted', 'Rejected']) {
      await client[`subscribeTo${operation}${kind}${outcome}`](at, mqtt.QoS.AtLeastOnce, answer(outcome === 'Accepted'));
    }
  }
  await client[`subscribeTo${kind}DeltaUpdatedEvents`](at, mqtt.QoS.AtLeastOnce, (error, e) => (error ? fail(error) : deltas.put(e)));
  await client[`subscribeTo${kind}UpdatedEvents`](at, mqtt.QoS.AtLeastOnce, (error, e) => (error ? fail(error) : documents.put(e)));
  let n = 0;
  const request = (operation) => async (more = {}) => {
    const clientToken = `token-${++n}`;
    await client[`publish${operation}${kind}`]({ ...at, ...more, clientToken }, mqtt.QoS.AtLeastOnce);
    const { accepted, response } = await answers.take();
    if (response.clientToken !== clientToken) fail(`token ${response.clientToken} instead of ${clientToken}`);
    return { accepted, response };
  };
  return { get: request('Get'), update: request('Update'), remove: request('Delete'), delta: deltas.take, documents: documents.take };
}

// The request-response clients make tokens and subscriptions themselves.
async function onRequestClient(device, name) {
  const client = device.requests({ maxRequestResponseSubscriptions: 6, maxStreamingSubscriptions: 4, operationTimeoutInSeconds: 10 });
  const at = { thingName: thing, ...(name && { shadowName: name }) };
  const kind = name ? 'NamedShadow' : 'Shadow';
  const open = async (stream) => {
    const events = queue();
    let established;
    const ready = new Promise((resolve) => { established = resolve; });
    stream.on('incomingPublish', (e) => events.put(e.message));
    stream.on('subscriptionStatus', (e) => (e.error ? fail(e.error) : established()));
    stream.open();
    await ready;
    return events;
  };
  const deltas = await open(client[`create${kind}DeltaUpdatedStream`](at));
  const documents = await open(client[`create${kind}UpdatedStream`](at));
  const request = (operation) => async (more = {}) => {
    try {
      return { accepted: true, response: await client[operation + kind]({ ...at, ...more }) };
    } catch (error) {
      if (!error.modeledError) fail(error);
      return { accepted: false, response: error.modeledError };
    }
  };
  return {
    get: request('get'), update: request('update'), remove: request('delete'), delta: deltas.take, documents: documents.take, close: () => client.close(),
  };
}

// thingShadow of the first SDK: it keeps versions and tokens itself, and shows
// neither named shadows nor documents.
async function onThingShadow() {
  const shadows = awsIot.thingShadow({
    protocol: 'mqtts', host: 'localhost', port: Number(env.PORT), clientId: thing, keyPath: env.KEY, certPath: env.CERT, caPath: env.CA,
  });
  shadows.on('error', fail);
  await once(shadows, 'connect');
  await new Promise((resolve, reject) => {
    shadows.register(thing, { ignoreDeltas: false, enableVersioning: true, persistentSubscribe: false }, (error, failed) => (error || failed?.length ? reject(error ?? failed) : resolve()));
  });
  const answers = queue(), deltas = queue();
  shadows.on('status', (_, status, token, response) => answers.put({ accepted: status === 'accepted', response, token }));
  shadows.on('timeout', (_, token) => fail(`no answer to ${token}`));
  shadows.on('delta', (_, e) => deltas.put(e));
  const request = (operation) => async (more) => {
    const token = shadows[operation](thing, ...(more ? [more] : []));
    if (token === null) fail(`${operation} is under way already`);
    const answer = await answers.take();
    if (answer.token !== token) fail(`token ${answer.token} instead of ${token}`);
    return answer;
  };
  return {
    get: request('get'), update: request('update'), remove: request('delete'), delta: deltas.take,
    close: () => new Promise((resolve) => shadows.end(false, resolve)),
  };
}

// What every client goes through.
async function through(name, client) {
  const shown = ({ accepted, response: r }) => ({
    accepted, version: r.version, code: r.code, message: r.message, state: r.state, metadata: Boolean(r.metadata), timestamp: Boolean(r.timestamp),
  });
  const at = (event, data) => say(event, { shadow: name, ...data });
  at('get', shown(await client.get()));
  at('update', shown(await client.update({ state: { desired: { led: 'on', fan: { rpm: 900 } }, reported: { fan: { rpm: 0 } } } })));
  let d = await client.delta();
  at('delta', { version: d.version, state: d.state, metadata: Boolean(d.metadata), timestamp: Boolean(d.timestamp) });
  if (client.documents) {
    const both = await client.documents();
    at('documents', { version: both.current.version, state: both.current.state, previous: both.previous.version ?? 0 });
  }
  at('update', shown(await client.update({ state: { reported: { led: 'on', fan: { rpm: 900 } } } })));
  if (client.documents) {
    const both = await client.documents();
    at('documents', { version: both.current.version, state: both.current.state, previous: both.previous.version });
  }
  at('get', shown(await client.get()));
  if (client.documents) {
    at('conflict', shown(await client.update({ state: { reported: { led: 'off' } }, version: 1 })));
  } else {
    // It sends the version that it saw last: the suite now makes another one.
    say('ready', { shadow: name });
    await once(process.stdin, 'data');
    at('conflict', shown(await client.update({ state: { reported: { led: 'off' } } })));
  }
  at('delete', shown(await client.remove()));
  at('delete', shown(await client.remove()));
  await client.close?.();
}

try {
  if (env.SDK === 'v1') {
    await through('', await onThingShadow());
  } else {
    const device = await (env.PROTOCOL === '5' ? connect5() : connect311());
    const on = env.SDK === 'v2-requests' ? onRequestClient : onServiceClient;
    await through('', await on(device, ''));
    await through('config', await on(device, 'config'));
    // See device.mjs: let what is on its way arrive.
    await new Promise((resolve) => setTimeout(resolve, 500));
    await device.close();
  }
  say('closed');
  process.exit(0);
} catch (error) {
  fail(error);
}
