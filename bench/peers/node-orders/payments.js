// Charges cards. node payments.js PORT DATABASE_URL CARD_NETWORK_URL
const crypto = require('crypto');
const axios = require('axios');
const { serve, query } = require('./service');

const network = process.argv[4];

serve(
  `CREATE TABLE IF NOT EXISTS payments
   (id uuid PRIMARY KEY, order_id uuid, amount bigint, status text, created_at timestamptz DEFAULT now())`,
  (app) => {
    app.post('/api/payments', async (request, response) => {
      const { order_id, amount, token } = request.body;
      const id = crypto.randomUUID();
      await query("INSERT INTO payments VALUES ($1, $2, $3, 'pending')", [id, order_id, amount]);
      // The bench finds its charges by this prefix.
      const key = `node-${id}`;
      const { data } = await axios.post(`${network}/authorizations`, { key, order_id, amount, currency: 'EUR', token });
      if (data.status === 'declined') {
        await query("UPDATE payments SET status = 'declined' WHERE id = $1", [id]);
        return response.status(402).json({ id, status: 'declined' });
      }
      await axios.post(`${network}/authorizations/${key}/capture`);
      await query("UPDATE payments SET status = 'captured' WHERE id = $1", [id]);
      response.status(201).json({ id, status: 'captured' });
    });
  },
);
