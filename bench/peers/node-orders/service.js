// What the services share: Express, a pool of connections, and 500 for whatever fails.
const express = require('express');
const { Pool } = require('pg');

const [port, connectionString] = process.argv.slice(2);
const pool = new Pool({ connectionString });

exports.query = async (sql, values) => (await pool.query(sql, values)).rows;

exports.serve = async (schema, routes) => {
  await pool.query(schema);
  const app = express();
  app.use(express.json());
  // Express 4 does not see that a promise was rejected.
  const caught = (handler) => (request, response) =>
    handler(request, response).catch((error) => {
      const status = error.response ? error.response.status : 500;
      response.status(status).json({ error: error.message });
    });
  routes({
    get: (path, handler) => app.get(path, caught(handler)),
    post: (path, handler) => app.post(path, caught(handler)),
  });
  app.listen(Number(port), '127.0.0.1');
};
