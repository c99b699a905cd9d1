// A caller of the data plane on the newest AWS SDK for JavaScript, which knows
// operations that no SDK for Go to be had here does. It reads calls as JSON
// lines and writes their outcomes as JSON lines, in order. The Go suite beside
// it starts it.
import * as sdk from '@aws-sdk/client-iot-data-plane';
import { createInterface } from 'node:readline';

const env = process.env;
const client = new sdk.IoTDataPlaneClient({
  endpoint: env.ENDPOINT,
  region: env.REGION,
  credentials: { accessKeyId: env.ACCESS_KEY, secretAccessKey: env.SECRET_KEY },
  maxAttempts: 1,
});
const blobs = ['payload', 'userProperties'];
const text = (key, value) => (blobs.includes(key) && value ? Buffer.from(Object.values(value)).toString() : value);

for await (const line of createInterface({ input: process.stdin })) {
  const { operation, input } = JSON.parse(line);
  try {
    const { $metadata, ...output } = await client.send(new sdk[`${operation}Command`](input));
    console.log(JSON.stringify({ status: $metadata.httpStatusCode, output }, text));
  } catch (err) {
    // A modelled exception is of the SDK's own class of that name.
    const typed = typeof sdk[err.name] === 'function' && err instanceof sdk[err.name];
    console.log(JSON.stringify({ status: err.$metadata?.httpStatusCode, error: err.name, typed, message: err.message }));
  }
}
