// An API gateway as tutorials show it: picks the service by the prefix of the path, forwards headers and body with
// axios, and copies the answer. Nothing in it is tuned. Debian's node-express and node-axios are all it needs.
const express = require('express');
const axios = require('axios');

const [port, ...origins] = process.argv.slice(2);
const services = { '/bench': origins };
let next = 0;

const app = express();
app.use(express.raw({ type: () => true, limit: '64mb' }));
app.use(async (request, response) => {
  const prefix = Object.keys(services).find((prefix) => request.path.startsWith(prefix));
  if (!prefix) return response.status(404).json({ error: 'not found' });
  const origin = services[prefix][next++ % services[prefix].length];
  const headers = { ...request.headers };
  // axios computes the length itself.
  for (const name of ['host', 'connection', 'content-length']) delete headers[name];
  headers['x-forwarded-for'] = request.ip;
  try {
    const answer = await axios({
      method: request.method,
      url: origin + request.originalUrl,
      headers,
      data: Buffer.isBuffer(request.body) ? request.body : undefined,
      responseType: 'arraybuffer',
      maxBodyLength: Infinity,
      validateStatus: () => true,
    });
    for (const name of ['connection', 'transfer-encoding']) delete answer.headers[name];
    response.status(answer.status).set(answer.headers).send(answer.data);
  } catch (error) {
    response.status(502).json({ error: error.message });
  }
});
app.listen(Number(port), '127.0.0.1');
