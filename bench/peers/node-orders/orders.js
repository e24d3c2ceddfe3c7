// Products, stock and orders. node orders.js PORT DATABASE_URL USERS_URL PAYMENTS_URL
const crypto = require('crypto');
const axios = require('axios');
const { serve, query } = require('./service');

const [users, payments] = process.argv.slice(4);

serve(
  `CREATE TABLE IF NOT EXISTS products (id uuid PRIMARY KEY, name text, price bigint, stock bigint);
   CREATE TABLE IF NOT EXISTS orders
   (id uuid PRIMARY KEY, customer_id uuid, lines jsonb, total bigint, status text, created_at timestamptz DEFAULT now());
   CREATE INDEX IF NOT EXISTS orders_customer ON orders (customer_id)`,
  (app) => {
    app.post('/api/products', async (request, response) => {
      const { name, price, stock } = request.body;
      const id = crypto.randomUUID();
      await query('INSERT INTO products VALUES ($1, $2, $3, $4)', [id, name, price.amount, stock]);
      response.status(201).json({ id, name, price, stock });
    });

    app.post('/api/orders', async (request, response) => {
      const headers = { authorization: request.get('authorization') || '' };
      const { data: user } = await axios.get(`${users}/api/users/me`, { headers });
      const { lines, payment_token } = request.body;
      let total = 0;
      for (const line of lines) {
        const [product] = await query(
          'UPDATE products SET stock = stock - $2 WHERE id = $1 AND stock >= $2 RETURNING price',
          [line.product_id, line.quantity]);
        if (!product) return response.status(409).json({ error: 'out of stock' });
        total += Number(product.price) * line.quantity;
      }
      const id = crypto.randomUUID();
      await query("INSERT INTO orders VALUES ($1, $2, $3, $4, 'pending')", [id, user.id, JSON.stringify(lines), total]);
      const paid = await axios.post(
        `${payments}/api/payments`, { order_id: id, amount: total, token: payment_token },
        { validateStatus: (status) => status < 500 });
      const status = paid.status === 201 ? 'confirmed' : 'rejected';
      await query('UPDATE orders SET status = $2 WHERE id = $1', [id, status]);
      response.status(201).json({ id, status, total });
    });

    app.get('/api/orders/:id', async (request, response) => {
      const [order] = await query('SELECT * FROM orders WHERE id = $1', [request.params.id]);
      if (!order) return response.status(404).json({ error: 'not found' });
      response.json(order);
    });
  },
);
