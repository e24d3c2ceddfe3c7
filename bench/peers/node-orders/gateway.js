// Forwards each request to the service of its path. node gateway.js PORT USERS_URL ORDERS_URL PAYMENTS_URL
const express = require('express');
const axios = require('axios');

const [port, users, orders, payments] = process.argv.slice(2);
const services = {
  '/api/users': users, '/api/sessions': users,
  '/api/orders': orders, '/api/products': orders,
  '/api/payments': payments,
};

const app = express();
app.use(express.json());
app.use(async (request, response) => {
  const prefix = Object.keys(services).find((prefix) => request.path.startsWith(prefix));
  if (!prefix) return response.status(404).json({ error: 'not found' });
  try {
    const answer = await axios({
      method: request.method,
      url: services[prefix] + request.originalUrl,
      headers: { authorization: request.get('authorization') || '' },
      data: request.method === 'POST' ? request.body : undefined,
      validateStatus: () => true,
    });
    response.status(answer.status).json(answer.data);
  } catch (error) {
    response.status(502).json({ error: error.message });
  }
});
app.listen(Number(port), '127.0.0.1');
